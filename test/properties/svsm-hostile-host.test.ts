import { CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, PAGE_SIZE, TERMINATE, terminationLo, VMSA } from "@vmpl-lab/sev-es"
import { RandomStream } from "@vmpl-lab/sim"
import { BEHAVIOUR, type FirmwareMessages, SVSM_BEHAVIOURS } from "@vmpl-lab/svsm"
import { OP, work } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import {
  CA,
  GUEST_VMSA,
  LIST,
  OTHER_CA,
  PAGE,
  ScriptedHost,
  SVSM,
  SVSM_DATA,
  UNVALIDATED
} from "../support/scriptedHost.ts"

const { SUCCESS } = SVSM_RESULT
const VALIDATE_IGNORING_CF = 12
/** What stands in the SVSM's memory and nowhere else. */
const SECRET = 0x5ec2_e75e

/** Pages that VMPL0 has to touch, and what the host puts there. */
const REMAPPED = (["calling area", "list", "guest's VMSA"] as const).flatMap((name, i) =>
  (["own", "host", "other guest"] as const).map(
    (target) =>
      [
        `${name}: ${{ own: "another page of the guest", host: "a shared page", "other guest": "another guest's page" }[target]}`,
        [CA, LIST, GUEST_VMSA][i]!,
        target
      ] as const
  )
)
const contents = (host: ScriptedHost, gpa: number): string => {
  const view = host.peek(gpa)
  return Buffer.from(view.buffer, view.byteOffset, PAGE_SIZE).toString("base64")
}

const withSecret = (behaviour: (typeof SVSM_BEHAVIOURS)[number]): ScriptedHost => {
  const host = new ScriptedHost(behaviour).boot()
  const view = host.poke(SVSM_DATA)
  for (let i = 0; i < PAGE_SIZE; i += 4) view.setUint32(i, SECRET, true)
  return host
}
const holdsSecret = (host: ScriptedHost, gpa: number): boolean => {
  const view = host.peek(gpa)
  return Array.from({ length: PAGE_SIZE / 4 }, (_, i) => view.getUint32(4 * i, true)).includes(SECRET)
}
const validate = (host: ScriptedHost, gpa: number, bits: number): number => {
  const view = host.poke(LIST)
  view.setUint32(0, 1, true)
  view.setUint32(8, gpa + bits, true)
  view.setUint32(12, 0, true)
  return host.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: LIST }).result
}

describe.each(SVSM_BEHAVIOURS)("as %s, against a hostile host", (behaviour) => {
  it("goes on through any order of spurious entries, withheld calls and refusals", () => {
    const host = new ScriptedHost(behaviour).boot()
    const random = new RandomStream(1, "hostile host")
    let served = 0
    for (let turn = 0; turn < 2_000; turn++) {
      const pending = random.int(0, 1)
      const exit = random.int(0, 1) === 0 ? EXIT.VMGEXIT : random.int(0, 0x410)
      host.setRegister("rax", [PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL])
      host.setRegister("rcx", 1)
      host.poke(CA).setUint8(0, pending)
      host.poke(GUEST_VMSA).setUint32(VMSA.guest_exit_code, exit, true)
      // The host may say that it did not run the guest, which halts VMPL0 until it is entered again.
      const refuses = random.int(0, 9) === 0
      host.answer(refuses ? random.int(1, 0xffff_ffff) : 0)
      if (refuses) expect(host.run().code).toBe(EXIT.HLT)
      host.expectRunsGuest()
      const isCall = pending === 1 && exit === EXIT.VMGEXIT
      expect(host.peek(CA).getUint8(0)).toBe(isCall || (behaviour === "coconut" && exit === EXIT.VMGEXIT) ? 0 : pending)
      if (isCall) served++
      expect(host.register("rax") === SUCCESS).toBe(isCall)
    }
    expect(served).toBeGreaterThan(100)
  })

  it("gives nothing of its own away when its page is put where the guest asks for a new one", () => {
    const host = withSecret(behaviour)
    host.moveFrame(SVSM_DATA, UNVALIDATED)
    expect(holdsSecret(host, UNVALIDATED)).toBe(true)
    const granted: Array<boolean> = []
    host.meddle = () => {
      const readable = host
        .entry(UNVALIDATED)
        .perms.slice(1)
        .some((mask) => mask !== 0)
      if (readable) granted.push(holdsSecret(host, UNVALIDATED))
    }
    expect(validate(host, UNVALIDATED, VALIDATE_IGNORING_CF)).toBe(SUCCESS)
    expect(granted.length).toBeGreaterThan(0)
    expect(granted).not.toContain(true)
  })

  it("ends the guest in order when the host takes a page that it has to touch", () => {
    for (const gpa of [CA, LIST, GUEST_VMSA]) {
      const host = new ScriptedHost(behaviour).boot()
      host.poke(LIST).setUint32(0, 1, true)
      host.setRegister("rax", [PROTOCOL.CORE, CORE_CALL.PVALIDATE])
      host.setRegister("rcx", LIST)
      host.poke(CA).setUint8(0, 1)
      host.poke(GUEST_VMSA).setUint32(VMSA.guest_exit_code, EXIT.VMGEXIT, true)
      // As after RMPUPDATE: assigned, not validated.
      host.setEntry(gpa, { validated: false, vmsa: false, perms: [0xf, 0, 0, 0] })
      host.answer()
      const { code, request } = host.run()
      const { set, reason } = TERMINATE.PVALIDATE
      expect([code, request]).toEqual([EXIT.VMGEXIT, terminationLo(set, reason)])
    }
  })

  it.each(REMAPPED)("touches nothing of what is put behind the %s", (_, gpa, target) => {
    const host = new ScriptedHost(behaviour).boot()
    host.poke(LIST).setUint32(0, 1, true)
    host.poke(LIST).setUint32(8, PAGE, true)
    host.poke(LIST).setUint32(12, 0, true)
    host.setRegister("rax", [PROTOCOL.CORE, CORE_CALL.PVALIDATE])
    host.setRegister("rcx", LIST)
    host.poke(CA).setUint8(0, 1)
    host.poke(GUEST_VMSA).setUint32(VMSA.guest_exit_code, EXIT.VMGEXIT, true)
    host.answer()
    const { pfn, bytes } =
      target === "own"
        ? { pfn: host.frameOf(OTHER_CA), bytes: () => contents(host, OTHER_CA) }
        : host.foreignFrame(target, gpa)
    const before = bytes()
    host.remap(gpa, pfn)
    const { code, request } = host.run()
    expect(bytes()).toBe(before)
    if (code === EXIT.VMGEXIT) {
      const { set, reason } = TERMINATE.PVALIDATE
      expect(request).toBe(terminationLo(set, reason))
      return
    }
    // The access has not happened. With the right frame back VMPL0 goes on as if nothing had been.
    expect(code).toBe(EXIT.NPF)
    host.remap(gpa, null)
    host.expectRunsGuest()
    expect([host.register("rax"), host.peek(CA).getUint8(0)]).toEqual([SUCCESS, 0])
    expect(host.entry(PAGE).validated).toBe(false)
  })

  it("cannot be overtaken: while VMPL0 serves a call, no core enters the caller's VMSA", () => {
    const host = new ScriptedHost(behaviour).boot()
    const outcomes = new Set<string | number>()
    let isServing = false
    host.meddle = ({ op, address, lo }) => {
      if (op === OP.WRITE && address === GUEST_VMSA + VMSA.efer) isServing = (lo & EFER_SVME) === 0
      if (isServing) outcomes.add(host.tryVmsa(GUEST_VMSA))
    }
    expect(validate(host, UNVALIDATED, VALIDATE_IGNORING_CF)).toBe(SUCCESS)
    expect(outcomes.size).toBe(1)
    expect(outcomes).not.toContain("entered")
    host.meddle = null
    expect(host.tryVmsa(GUEST_VMSA)).toBe("entered")
  })

  it("tells a guest how many pages the host says that its certificates need, however many", () => {
    const host = new ScriptedHost(behaviour).boot()
    host.state.messages = {
      *report() {
        yield work(1)
        return { ok: false, pagesNeeded: 0xffff_ffff }
      }
    } as unknown as FirmwareMessages
    const view = host.poke(PAGE)
    for (let i = 0; i < PAGE_SIZE; i += 4) view.setUint32(i, 0, true)
    view.setUint32(0x10, PAGE + 0x400, true)
    view.setUint16(0x18, 64, true)
    const { result, rdx } = host.call(PROTOCOL.ATTESTATION, 0, { rcx: PAGE })
    expect([result, rdx]).toEqual([SVSM_RESULT.INVALID_PARAMETER, 0xffff_ffff * PAGE_SIZE])
  })

  it("serves who is registered, whatever level the host says that it ran", () => {
    const host = new ScriptedHost(behaviour).boot()
    expect(host.call(PROTOCOL.CORE, CORE_CALL.REMAP_CA, { rcx: OTHER_CA }).result).toBe(SUCCESS)
    // The old area still says that there is a call, as a host that replays it would have it.
    host.poke(CA).setUint8(0, 1)
    host.setRegister("rax", [PROTOCOL.CORE, CORE_CALL.DEPOSIT_MEM])
    host.answer()
    host.expectRunsGuest()
    expect(host.peek(CA).getUint8(0)).toBe(1)
    expect(host.state.deposited.size).toBe(0)
    expect(host.entry(PAGE).perms).toEqual([0xf, 0xf, 0xf, 0])
  })
})

it("as coconut validates what the host has put in place of a validated page, as specification does not", () => {
  for (const behaviour of SVSM_BEHAVIOURS) {
    const host = withSecret(behaviour)
    host.fill(PAGE, 0xcc)
    host.moveFrame(SVSM_DATA, PAGE)
    validate(host, PAGE, VALIDATE_IGNORING_CF)
    expect(host.entry(PAGE).validated).toBe(!BEHAVIOUR[behaviour].refusesDoubleValidation)
    // The guest's data is gone with COCONUT-SVSM, but nothing of the SVSM's shows.
    const readable = host
      .entry(PAGE)
      .perms.slice(1)
      .some((mask) => mask !== 0)
    expect(readable && holdsSecret(host, PAGE)).toBe(false)
  }
  expect(SVSM.gpa).toBeLessThan(SVSM_DATA)
})
