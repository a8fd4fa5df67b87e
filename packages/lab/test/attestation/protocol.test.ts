import { copyBytes, Ghcb, type GuestPlan, PROTOCOL, pvalidateList, SVSM_RESULT, SvsmCaller } from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { guidBytes, VMSA } from "@vmpl-lab/sev-es"
import { SERVICE_GUID, type SvsmBehaviour } from "@vmpl-lab/svsm"
import { OP, type Program, readRegister } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { hostCertificates } from "../../src/attestation/AttestRun.ts"
import { builtInFirmware } from "../../src/Compare.ts"
import { DEFAULT_SCENARIO } from "../../src/DefaultScenario.ts"
import { Machine } from "../../src/Machine.ts"
import { svsmLaunch } from "../../src/SvsmLaunch.ts"
import { EK, NONCE, profile } from "./fixture.ts"

const { SUCCESS, INVALID_PARAMETER, INVALID_ADDRESS, UNSUPPORTED_CALL, UNSUPPORTED_PROTOCOL } = SVSM_RESULT
const PAGE = 0x1000
const UNTOUCHED = 0xffff_ffff
const MANIFEST_SIZE = 48 + EK.length
const CERTIFICATES = 4 * PAGE

/** Pages behind `base`: operation, nonce, report, manifest, certificates; what follows is not validated. */
const AT = { OPERATION: 0, NONCE: PAGE, REPORT: 2 * PAGE, MANIFEST: 3 * PAGE, CERTIFICATES: 4 * PAGE, END: 8 * PAGE }

/** An operation by the offsets of the facts; the changes are 32-bit words, bigints or bytes by offset. */
type Change = { readonly [offset: number]: number | bigint | Uint8Array }
const operationOf = (base: number, change: Change): Buffer => {
  const bytes = Buffer.alloc(0x58)
  const rows: Change = {
    0: BigInt(base + AT.REPORT),
    8: PAGE,
    16: BigInt(base + AT.NONCE),
    24: 64,
    32: BigInt(base + AT.MANIFEST),
    40: PAGE,
    48: BigInt(base + AT.CERTIFICATES),
    56: CERTIFICATES,
    ...change
  }
  for (const [offset, value] of Object.entries(rows)) {
    if (typeof value === "number") bytes.writeUInt32LE(value, Number(offset))
    else if (typeof value === "bigint") bytes.writeBigUInt64LE(value, Number(offset))
    else bytes.set(value, Number(offset))
  }
  return bytes
}

interface Row {
  readonly name: string
  readonly call?: number
  readonly change?: (base: number) => Change
  /** Where RCX points, from the operation's page on; null: far outside. */
  readonly rcx?: number | null
}

interface Answered {
  readonly result: number
  readonly rcx: number
  readonly rdx: number
  readonly r8: number
}

const reg = (offset: number): Program<number> =>
  (function* () {
    return (yield readRegister(offset)).lo
  })()

/** Makes all calls of a table from one guest, and tells what came of each. */
const answersOf = (rows: ReadonlyArray<Row>, behaviour?: SvsmBehaviour): ReadonlyArray<Answered> => {
  const svsm = svsmLaunch(builtInFirmware(), 1, behaviour === undefined ? {} : { behaviour })
  const base = svsm.heapGpa + 0x10_0000
  const answers: Array<Answered> = []
  function* body(plan: GuestPlan, _: number, caGpa: number): Program {
    const ghcb = new Ghcb(svsm.heapGpa + 0x5000)
    const caller = new SvsmCaller(caGpa, "page", ghcb)
    plan.report.ready(0)
    const entries = Array.from({ length: AT.END / PAGE }, (_, i) => ({ gpa: base + i * PAGE, validate: true }))
    yield* copyBytes(OP.WRITE_BYTES, caGpa + 8, pvalidateList(entries), true)
    yield* caller.call(PROTOCOL.CORE, 1, { rcx: caGpa + 8 })
    yield* copyBytes(OP.WRITE_BYTES, base + AT.NONCE, NONCE, true)
    for (const { call = 0, change, rcx = 0 } of rows) {
      const at = base + AT.OPERATION + (rcx ?? 0)
      const bytes = operationOf(base, change?.(base) ?? {})
      yield* copyBytes(OP.WRITE_BYTES, base + AT.OPERATION, bytes, true)
      const given = { rcx: rcx === null ? 2 ** 51 : at, rdx: UNTOUCHED, r8: UNTOUCHED }
      const result = yield* caller.call(PROTOCOL.ATTESTATION, call, given)
      const [r1, r2, r3] = [yield* reg(VMSA.rcx), yield* reg(VMSA.rdx), yield* reg(VMSA.r8)]
      answers.push({
        result,
        rcx: result === SUCCESS || r3 !== UNTOUCHED || r2 !== UNTOUCHED ? r1 : 0,
        rdx: r2,
        r8: r3
      })
    }
    plan.report.done(0)
  }
  const machine = new Machine({
    strategy: STRATEGIES[0]!,
    scenario: { ...DEFAULT_SCENARIO, vcpus: 1, calls: 0, boots: 1 },
    profile,
    seed: 1,
    calls: true,
    svsm,
    certificates: (identity) => hostCertificates(identity, "VCEK"),
    body
  })
  machine.svsm.services.push({ guid: SERVICE_GUID.VTPM, bytes: () => EK })
  while (machine.stepMany(50_000));
  expect(machine.failure()).toBeNull()
  return answers
}

/** Nothing was written to RDX and R8. */
const NO_LENGTHS = { rdx: UNTOUCHED, r8: UNTOUCHED }
const LENGTHS = { rcx: MANIFEST_SIZE, r8: 0x4a0 }
const vtpm = { 64: guidBytes(SERVICE_GUID.VTPM) }

/** In the order of the checks: each row passes all those before it. */
const TABLE: ReadonlyArray<readonly [row: Row, expected: Partial<Answered>]> = [
  [{ name: "all services" }, { result: SUCCESS, ...LENGTHS }],
  [
    { name: "one service", call: 1, change: () => vtpm },
    { result: SUCCESS, rcx: EK.length, r8: 0x4a0 }
  ],
  [
    { name: "no certificates", change: () => ({ 48: 1n, 56: 0 }) },
    { result: SUCCESS, ...LENGTHS, rdx: 0 }
  ],
  [
    { name: "an operation outside of RAM", rcx: null },
    { result: INVALID_ADDRESS, ...NO_LENGTHS }
  ],
  [
    { name: "an operation that is not validated", rcx: AT.END },
    { result: INVALID_ADDRESS, ...NO_LENGTHS }
  ],
  [
    { name: "reserved 0x0c", change: () => ({ 12: 1 }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    { name: "reserved 0x1a", change: () => ({ 28: 0x100_0000 }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    { name: "reserved 0x2c", change: () => ({ 44: 1 }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    { name: "reserved 0x3c", change: () => ({ 60: 1 }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    { name: "reserved 0x54", call: 1, change: () => ({ ...vtpm, 84: 1 }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    { name: "manifest version 1 of a strange service", call: 1, change: () => ({ 80: 1 }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    { name: "a strange service, before its nonce", call: 1, change: () => ({ 24: 63 }) },
    { result: UNSUPPORTED_PROTOCOL, ...NO_LENGTHS }
  ],
  [
    { name: "a nonce of 63 bytes", change: () => ({ 24: 63 }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    { name: "a nonce across two pages", change: (base) => ({ 16: BigInt(base + AT.NONCE + PAGE - 63) }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    { name: "a nonce that is not validated", change: (base) => ({ 16: BigInt(base + AT.END) }) },
    { result: INVALID_ADDRESS, ...NO_LENGTHS }
  ],
  [
    { name: "certificates of more than 16 KiB", change: () => ({ 56: CERTIFICATES + 1 }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    {
      name: "too few pages for the host's certificates, before a misaligned report",
      change: () => ({ 56: 100, 0: 1n })
    },
    { result: INVALID_PARAMETER, rcx: MANIFEST_SIZE, rdx: 2 * PAGE, r8: UNTOUCHED }
  ],
  [
    { name: "a misaligned report", change: (base) => ({ 0: BigInt(base + 8) }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    { name: "a misaligned manifest", change: (base) => ({ 32: BigInt(base + 8) }) },
    { result: INVALID_PARAMETER, ...NO_LENGTHS }
  ],
  [
    {
      name: "a report that wraps, before misaligned certificates",
      change: () => ({ 48: 8n, 0: -0x1000n & (2n ** 64n - 1n), 8: 2 * PAGE })
    },
    { result: INVALID_ADDRESS, ...NO_LENGTHS }
  ],
  [
    {
      name: "a report that wraps, before a manifest that is too small",
      change: () => ({ 0: 2n ** 64n - 4096n, 8: 2 * PAGE, 40: 1 })
    },
    { result: INVALID_ADDRESS, ...NO_LENGTHS }
  ],
  [
    { name: "a small report", change: () => ({ 8: 0x49f }) },
    { result: INVALID_PARAMETER, ...LENGTHS }
  ],
  [
    { name: "a small manifest", change: () => ({ 40: MANIFEST_SIZE - 1 }) },
    { result: INVALID_PARAMETER, ...LENGTHS }
  ],
  [
    { name: "a small manifest, before a report that is not there", change: () => ({ 40: 1, 0: 0n }) },
    { result: INVALID_PARAMETER, ...LENGTHS }
  ],
  [
    { name: "a report that is not validated", change: (base) => ({ 0: BigInt(base + AT.END) }) },
    { result: INVALID_ADDRESS, ...LENGTHS }
  ],
  [
    { name: "a manifest where no memory is", change: () => ({ 32: 2n ** 60n }) },
    { result: INVALID_ADDRESS, ...LENGTHS }
  ],
  [{ name: "all services, after all that" }, { result: SUCCESS, ...LENGTHS }]
]

describe("the attestation protocol", () => {
  it("answers each call in the order of its checks", () => {
    const answers = answersOf(TABLE.map(([row]) => row))
    for (const [i, [{ name }, expected]] of TABLE.entries()) expect(answers[i], name).toMatchObject(expected)
  })

  it("never writes into the SVSM's memory for a guest that names it", () => {
    const { gpa } = svsmLaunch(builtInFirmware(), 1).parameters.svsm
    const rows = [0x00, 0x20, 0x30].map((at) => ({ name: "", change: () => ({ [at]: BigInt(gpa) }) }))
    for (const { result } of answersOf([...rows, { name: "nonce", change: () => ({ 16: BigInt(gpa) }) }])) {
      expect([INVALID_ADDRESS, INVALID_PARAMETER]).toContain(result)
    }
  })

  it("answers calls that it does not have as the behaviour says", () => {
    const rows = [2, 0xffff].map((call) => ({ name: "", call }))
    expect(answersOf(rows).map(({ result }) => result)).toEqual([UNSUPPORTED_CALL, UNSUPPORTED_CALL])
    expect(answersOf(rows, "coconut").map(({ result }) => result)).toEqual([UNSUPPORTED_PROTOCOL, UNSUPPORTED_PROTOCOL])
  })
})
