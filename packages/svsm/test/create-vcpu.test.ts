import { apVmsa, CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { EFER_SVME, PAGE_SIZE, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import {
  CA,
  type CallRegisters,
  FIRMWARE,
  GUEST_VMSA,
  LIST,
  OTHER_CA,
  PAGE,
  ScriptedHost,
  SVSM,
  SVSM_DATA,
  UNVALIDATED,
  VCPUS
} from "../../../test/support/scriptedHost.ts"

const { SUCCESS, INVALID_ADDRESS, INVALID_PARAMETER, FAIL_BASE } = SVSM_RESULT
const ALL = 0xf
const READ = 1
const { SNPActive, AlternateInjection } = SEV_FEATURES
const OWN = [ALL, ALL, ALL, 0] as const

/** Where the new vCPU's VMSA and calling area go unless a case says otherwise. */
const NEW = PAGE

/** A guest that has written a good VMSA at `gpa`, with some bytes changed. */
const withVmsa = (change: (view: DataView) => void = () => {}, gpa = NEW): ScriptedHost => {
  const host = new ScriptedHost().boot()
  const bytes = apVmsa({ vmpl: 2, sevFeatures: SNPActive, codeBase: 0x8000, rip: 0, argument: 1 })
  const view = host.poke(gpa)
  new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).set(bytes)
  change(view)
  return host
}
const create = (host: ScriptedHost, registers: CallRegisters = {}): number =>
  host.call(PROTOCOL.CORE, CORE_CALL.CREATE_VCPU, { rcx: NEW, rdx: OTHER_CA, r8: 1, ...registers }).result

const BAD: ReadonlyArray<readonly [string, CallRegisters, number]> = [
  ["a VMSA off by 8", { rcx: NEW + 8 }, INVALID_PARAMETER],
  ["a calling area off by 8", { rdx: OTHER_CA + 8 }, INVALID_PARAMETER],
  ["both in one page", { rdx: NEW }, INVALID_ADDRESS],
  ["the APIC ID after the last", { r8: VCPUS }, INVALID_PARAMETER],
  ["the highest APIC ID", { r8: 0xffff_ffff }, INVALID_PARAMETER],
  ["a VMSA in SVSM memory", { rcx: SVSM_DATA }, INVALID_ADDRESS],
  ["a calling area in SVSM memory", { rdx: SVSM.gpa }, INVALID_ADDRESS],
  ["the caller's own VMSA", { rcx: GUEST_VMSA }, INVALID_ADDRESS],
  ["a VMSA in the live calling area", { rcx: CA }, INVALID_ADDRESS],
  ["the live calling area again", { rdx: CA }, INVALID_ADDRESS],
  ["a VMSA that is not validated", { rcx: UNVALIDATED }, INVALID_ADDRESS],
  ["a calling area that is not validated", { rdx: UNVALIDATED }, INVALID_ADDRESS],
  ["a VMSA that is 2 MiB aligned, which hardware and KVM do not take", { rcx: 0 }, INVALID_PARAMETER],
  ["a VMSA outside of memory", { rcx: FIRMWARE.gpa + FIRMWARE.size }, INVALID_ADDRESS],
  ["a calling area outside of memory", { rdx: FIRMWARE.gpa + FIRMWARE.size }, INVALID_ADDRESS],
  ["a VMSA at 2^52 above a good one", { rcx: [0x10_0000, NEW] }, INVALID_ADDRESS],
  ["a calling area at 2^52 above a good one", { rdx: [0x10_0000, OTHER_CA] }, INVALID_ADDRESS]
]

/** VMSAs that are refused after the rights were taken. */
const UNACCEPTABLE: ReadonlyArray<readonly [string, (view: DataView) => void, number]> = [
  ["VMPL 0", (view) => view.setUint8(VMSA.vmpl, 0), INVALID_PARAMETER],
  ["VMPL 1, above the caller", (view) => view.setUint8(VMSA.vmpl, 1), INVALID_PARAMETER],
  ["VMPL 4, which does not exist", (view) => view.setUint8(VMSA.vmpl, 4), FAIL_BASE + 1],
  ["VMPL 255", (view) => view.setUint8(VMSA.vmpl, 255), FAIL_BASE + 1],
  ["EFER.SVME clear", (view) => view.setUint32(VMSA.efer, 0xd01, true), INVALID_PARAMETER],
  ["SEV_FEATURES without SNP", (view) => view.setUint32(VMSA.sev_features, 0, true), INVALID_PARAMETER],
  [
    "SEV_FEATURES with one more",
    (view) => view.setUint32(VMSA.sev_features, SNPActive | AlternateInjection, true),
    INVALID_PARAMETER
  ],
  ["SEV_FEATURES with a bit above 31", (view) => view.setUint32(VMSA.sev_features + 4, 1, true), INVALID_PARAMETER]
]

describe("CREATE_VCPU", () => {
  it("makes the page a VMSA: VMPL2 reads it, nobody but VMPL0 writes it; clears the new calling area", () => {
    const host = withVmsa()
    host.fill(OTHER_CA, 0xff)
    expect(create(host)).toBe(SUCCESS)
    expect(host.entry(NEW)).toMatchObject({ validated: true, vmsa: true, perms: [ALL, 0, READ, 0] })
    expect(host.entry(OTHER_CA)).toMatchObject({ vmsa: false, perms: OWN })
    expect([host.peek(OTHER_CA).getUint32(0), host.peek(OTHER_CA).getUint32(4)]).toEqual([0, 0])
    expect(host.peek(OTHER_CA).getUint32(8)).toBe(0xffff_ffff)
    expect(host.state.running[1]).toEqual({ vmsaGpa: NEW, caGpa: OTHER_CA, apicId: 1, vmpl: 2, guestOwned: true })
    expect(host.state.registry).toHaveLength(2)
  })

  it("takes the rights before it looks, so that what was checked is what runs", () => {
    const host = withVmsa()
    const rights: Array<ReadonlyArray<number>> = []
    host.meddle = ({ op, address }) => {
      if (op === OP.READ && address >= NEW && address < NEW + PAGE_SIZE) rights.push(host.entry(NEW).perms)
    }
    create(host)
    expect(rights.length).toBeGreaterThanOrEqual(3)
    expect(rights.every((perms) => perms.join() === [ALL, 0, 0, 0].join())).toBe(true)
  })

  it("takes a VMPL3, less privileged than the caller, which may then read it and no other level may", () => {
    const host = withVmsa((view) => view.setUint8(VMSA.vmpl, 3))
    host.setEntry(NEW, { perms: [ALL, ALL, ALL, ALL] })
    expect(create(host)).toBe(SUCCESS)
    expect(host.entry(NEW)).toMatchObject({ vmsa: true, perms: [ALL, 0, 0, READ] })
  })

  it.each(BAD)("refuses %s and changes nothing", (_, registers, result) => {
    const host = withVmsa()
    const before = host.svsmBytes()
    const pages = [NEW, OTHER_CA, CA, UNVALIDATED, SVSM_DATA, GUEST_VMSA]
    const entries = pages.map((gpa) => host.entry(gpa))
    host.fill(OTHER_CA, 0xff)
    expect(create(host, registers)).toBe(result)
    expect(host.svsmBytes()).toBe(before)
    expect(pages.map((gpa) => host.entry(gpa))).toEqual(entries)
    expect(host.peek(OTHER_CA).getUint32(0)).toBe(0xffff_ffff)
    expect([host.state.registry.length, host.state.running.filter((vmsa) => vmsa !== undefined).length]).toEqual([1, 1])
    expect(host.seen.some(({ operation: { op } }) => op === OP.RMPADJUST)).toBe(false)
    // The next one is served as if nothing had been.
    expect(create(host)).toBe(SUCCESS)
  })

  it.each(UNACCEPTABLE)("refuses %s and gives the rights back", (_, change, result) => {
    const host = withVmsa(change)
    const before = host.peek(NEW)
    const bytes = Buffer.from(before.buffer, before.byteOffset, PAGE_SIZE).toString("hex")
    expect(create(host)).toBe(result)
    expect(host.entry(NEW)).toMatchObject({ validated: true, vmsa: false, perms: OWN })
    const after = host.peek(NEW)
    expect(Buffer.from(after.buffer, after.byteOffset, PAGE_SIZE).toString("hex")).toBe(bytes)
    expect([host.state.registry.length, host.state.running[1]]).toEqual([1, undefined])
    // The page is the guest's again: as a PVALIDATE list, for one.
    host.poke(NEW).setUint32(0, 0, true)
    expect(host.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: NEW }).result).toBe(INVALID_PARAMETER)
  })

  it("never makes a VMSA for VMPL0, whoever asks", () => {
    const host = withVmsa((view) => view.setUint8(VMSA.vmpl, 0))
    host.poke(GUEST_VMSA).setUint8(VMSA.vmpl, 0)
    expect(create(host)).toBe(INVALID_PARAMETER)
    expect(host.entry(NEW).vmsa).toBe(false)
  })

  it("compares SEV_FEATURES with the start-up vCPU's, not with a fixed set", () => {
    const features = SNPActive | AlternateInjection
    const host = withVmsa((view) => view.setUint32(VMSA.sev_features, features, true))
    host.state.startUpFeatures = features
    expect(create(host)).toBe(SUCCESS)
  })

  it("asks for no more of EFER than SVME", () => {
    expect(create(withVmsa((view) => view.setUint32(VMSA.efer, EFER_SVME | 0xd01, true)))).toBe(SUCCESS)
  })

  it("looks at 32 bits of R8", () => {
    const host = withVmsa()
    expect(create(host, { r8: [7, 1] })).toBe(SUCCESS)
    expect(host.state.running[1]).toBeDefined()
  })

  it("makes a VMSA and its calling area taboo for every later call", () => {
    const host = withVmsa()
    create(host)
    const entries = (gpa: number): void => {
      const view = host.poke(LIST)
      view.setUint32(0, 1, true)
      view.setUint32(8, gpa, true)
      view.setUint32(12, 0, true)
    }
    for (const gpa of [NEW, OTHER_CA]) {
      const rmp = host.entry(gpa)
      expect(host.call(PROTOCOL.CORE, CORE_CALL.REMAP_CA, { rcx: gpa }).result).toBe(INVALID_ADDRESS)
      expect(create(host, { rcx: gpa, rdx: LIST, r8: 2 })).toBe(INVALID_ADDRESS)
      expect(create(host, { rcx: LIST, rdx: gpa, r8: 2 })).toBe(INVALID_ADDRESS)
      expect(host.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: gpa }).result).toBe(INVALID_ADDRESS)
      for (const bits of [0, 4, 8, 12]) {
        entries(gpa + bits)
        expect(host.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: LIST }).result).toBe(INVALID_ADDRESS)
      }
      expect(host.entry(gpa)).toEqual(rmp)
    }
  })

  it("for the same APIC ID again: the newer pair is served, the older stays taboo", () => {
    const host = withVmsa()
    create(host)
    const again = withVmsa(undefined, LIST).peek(LIST)
    const view = host.poke(LIST)
    new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).set(
      new Uint8Array(again.buffer, again.byteOffset, PAGE_SIZE)
    )
    expect(create(host, { rcx: LIST, rdx: LIST + 0x2000 })).toBe(SUCCESS)
    expect(host.state.running[1]).toMatchObject({ vmsaGpa: LIST })
    expect(host.call(PROTOCOL.CORE, CORE_CALL.REMAP_CA, { rcx: NEW }).result).toBe(INVALID_ADDRESS)
  })
})
