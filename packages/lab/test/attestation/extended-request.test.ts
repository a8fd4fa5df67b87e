import {
  ATTEST_PAGES,
  BLOCK,
  blockOf,
  Ghcb,
  GuestMessenger,
  type GuestPlan,
  type MessageOutcome,
  makeShared
} from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { decodeCertificateTable, EMPTY_CERTIFICATE_TABLE, SECRETS } from "@vmpl-lab/sev-es"
import { type Program, readBytes } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { hostCertificates } from "../../src/attestation/AttestRun.ts"
import { parseReport } from "../../src/attestation/Report.ts"
import { builtInFirmware } from "../../src/Compare.ts"
import { DEFAULT_SCENARIO } from "../../src/DefaultScenario.ts"
import { Machine } from "../../src/Machine.ts"
import { svsmLaunch } from "../../src/SvsmLaunch.ts"
import { NONCE, profile } from "./fixture.ts"

const PAGE = 0x1000
const GUEST_LEVEL = 2

/** One guest that asks for a report again and again, with room for so many pages of certificates each time. */
const reportsWith = (rooms: ReadonlyArray<number>, hasCertificates = true): ReadonlyArray<MessageOutcome | null> => {
  const svsm = svsmLaunch(builtInFirmware(), 1)
  const gpa = svsm.heapGpa + 0x10_0000
  const outcomes: Array<MessageOutcome | null> = []
  function* body(plan: GuestPlan, apicId: number): Program {
    const ghcb = new Ghcb(blockOf(plan, apicId) + BLOCK.GHCB)
    plan.report.ready(apicId)
    for (let at = ATTEST_PAGES.REQUEST; at < ATTEST_PAGES.OPERATION; at += PAGE) yield* makeShared(gpa + at)
    yield* ghcb.use()
    const key = new Uint8Array(32)
    yield readBytes(plan.secretsGpa + SECRETS.vmpck0 + GUEST_LEVEL * key.length, key)
    const pages = { request: gpa + ATTEST_PAGES.REQUEST, response: gpa + ATTEST_PAGES.RESPONSE }
    const room = { gpa: gpa + ATTEST_PAGES.CERTIFICATES, pages: ATTEST_PAGES.CERTIFICATE_PAGES }
    const messenger = new GuestMessenger(key, GUEST_LEVEL, pages, room)
    for (const count of rooms) {
      yield* messenger.clearRoom()
      outcomes.push(yield* messenger.report(ghcb, NONCE, GUEST_LEVEL, 0, count))
    }
    plan.report.done(apicId)
  }
  const machine = new Machine({
    strategy: STRATEGIES[0]!,
    scenario: { ...DEFAULT_SCENARIO, vcpus: 1, calls: 0, boots: 1 },
    profile,
    seed: 1,
    calls: true,
    svsm,
    ...(hasCertificates ? { certificates: (identity) => hostCertificates(identity, "VCEK") } : {}),
    body
  })
  while (machine.stepMany(50_000));
  expect(machine.failure()).toBeNull()
  return outcomes
}

describe("an extended request for a report", () => {
  it("tells how many pages the certificates need, and uses the message up: the next one is a new one", () => {
    const outcomes = reportsWith([1, 1, 2, 0])
    expect(outcomes.map((outcome) => outcome?.ok)).toEqual([false, false, true, true])
    const [first, second, whole, without] = outcomes
    expect([first, second]).toEqual([
      { ok: false, pagesNeeded: 2 },
      { ok: false, pagesNeeded: 2 }
    ])
    if (whole?.ok !== true || without?.ok !== true) throw new Error("no report")
    const table = decodeCertificateTable(whole.certificates)
    expect(typeof table === "string" ? table : table.length).toBe(3)
    for (const { payload } of [whole, without]) {
      expect(Buffer.from(parseReport(payload, "report").reportData)).toEqual(Buffer.from(NONCE))
    }
    expect(without.certificates).toHaveLength(0)
  })

  it("gets an empty table where the host has no certificates", () => {
    const [outcome] = reportsWith([1], false)
    if (outcome?.ok !== true) throw new Error("no report")
    expect(outcome.certificates.subarray(0, EMPTY_CERTIFICATE_TABLE).every((byte) => byte === 0)).toBe(true)
    expect(decodeCertificateTable(outcome.certificates)).toEqual([])
  })
})
