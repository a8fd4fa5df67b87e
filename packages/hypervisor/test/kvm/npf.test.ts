import { RETURN_CODE } from "@vmpl-lab/rmp"
import { NPF_INFO1, NPF_INFO1_HI, PAGE_SIZE, VMCB } from "@vmpl-lab/sev-es"
import { PRIMITIVE, Span } from "@vmpl-lab/sim"
import { describe, expect, it } from "vitest"
import { DEFAULT_VM_CONFIG, ERRNO, EXIT_REASON, HANDLED } from "../../src/index.ts"
import { handleNpf } from "../../src/kvm/NpfHandler.ts"
import { ASID, type Bench, bench, SLOT } from "./support.ts"

const GFN = 0x30
const { ENC, VMPL, FINAL } = NPF_INFO1_HI
const { U, W, P, RMP } = NPF_INFO1

/** A nested page fault as the hardware reports it. @returns what the handler says, and what it charged */
const fault = (it: Bench, gpa: number, infoLo: number, infoHi: number) => {
  const { host } = it.kvm.hardware
  host.write64(it.vcpu.vmcb + VMCB.exit_info_1, infoLo >>> 0, infoHi)
  host.write64(it.vcpu.vmcb + VMCB.exit_info_2, gpa >>> 0, Math.floor(gpa / 2 ** 32))
  const span = new Span()
  span.start(it.thread.time)
  it.thread.span = span
  const handled = handleNpf(it.vcpu, it.thread)
  return { handled, maps: span.count[PRIMITIVE.npf_map_4k], rmpupdates: span.count[PRIMITIVE.rmpupdate_4k] }
}

const MAPPED = { handled: HANDLED.RESUME_GUEST, maps: 1, rmpupdates: 0 }
const TO_USER = { handled: HANDLED.EXIT_TO_USER, maps: 0, rmpupdates: 0 }

describe("a nested page fault", () => {
  it("of a private access maps a private frame, assigned to the guest, not validated", () => {
    const it = bench()
    expect(fault(it, GFN * PAGE_SIZE + 0x123, U | W, FINAL | ENC)).toEqual({ ...MAPPED, rmpupdates: 1 })
    const pfn = it.vm.npt.lookup(GFN)
    expect(pfn).toBe(it.vm.memory.privateFrameIfPresent(GFN))
    expect(it.rmp.entry(pfn)).toMatchObject({
      assigned: true,
      asid: ASID,
      gfn: GFN,
      size: 0,
      immutable: false,
      validated: false,
      vmsa: false,
      perms: [0xf, 0, 0, 0]
    })
  })

  it("of a page that is the guest's already maps it and leaves its entry alone", () => {
    const it = bench()
    const pfn = it.vm.memory.privateFrame(GFN)
    it.rmp.firmwareSet(pfn, { assigned: true, asid: ASID, gfn: GFN, validated: true, perms: [0xf, 0, 3, 0] })
    const before = it.rmp.entry(pfn)
    expect(fault(it, GFN * PAGE_SIZE, U, FINAL | ENC)).toEqual(MAPPED)
    expect(it.rmp.entry(pfn)).toEqual(before)
    expect(it.vm.npt.lookup(GFN)).toBe(pfn)
  })

  it.each([
    ["another guest's", { asid: ASID + 1, gfn: GFN }],
    ["of another GFN", { asid: ASID, gfn: GFN + 1 }]
  ])("of a frame that the RMP says is %s gives it to this guest, unvalidated", (_, fields) => {
    const it = bench()
    const pfn = it.vm.memory.privateFrame(GFN)
    it.rmp.firmwareSet(pfn, { assigned: true, validated: true, perms: [0xf, 0, 0, 0], ...fields })
    expect(fault(it, GFN * PAGE_SIZE, U, FINAL | ENC)).toEqual({ ...MAPPED, rmpupdates: 1 })
    expect(it.rmp.entry(pfn)).toMatchObject({ asid: ASID, gfn: GFN, validated: false })
  })

  it("goes to user space when RMPUPDATE refuses", () => {
    const it = bench()
    const pfn = it.vm.memory.privateFrame(GFN)
    it.rmp.firmwareSet(pfn, { assigned: true, immutable: true, asid: 0, gfn: 0 })
    expect(fault(it, GFN * PAGE_SIZE, U, FINAL | ENC).handled).toBe(HANDLED.EXIT_TO_USER)
    expect(it.vcpu.run.detail).toMatch(/RMPUPDATE answers/)
    expect(it.vm.npt.lookup(GFN)).toBe(-1)
  })

  it("of a shared access to a shared page maps a hypervisor-owned frame without RMPUPDATE", () => {
    const it = bench()
    it.vm.setMemoryAttributes(it.thread, GFN, false)
    expect(fault(it, GFN * PAGE_SIZE, U | W, FINAL)).toEqual(MAPPED)
    const pfn = it.vm.npt.lookup(GFN)
    expect(pfn).toBe(it.vm.memory.sharedFrame(GFN))
    expect(it.rmp.checkHypervisorOwned(pfn)).toBe(true)
  })

  it.each([
    ["private", ENC, true, "is accessed as private but is not"],
    ["shared", 0, false, "is accessed as shared but is not"]
  ] as const)("of a %s access to a page of the other kind is user space's", (_, enc, wants, detail) => {
    const it = bench()
    if (wants) it.vm.setMemoryAttributes(it.thread, GFN, false)
    expect(fault(it, GFN * PAGE_SIZE, U, FINAL | enc)).toEqual(TO_USER)
    expect(it.vcpu.run).toMatchObject({ exitReason: EXIT_REASON.MEMORY_FAULT, gfn: GFN, toPrivate: wants })
    expect(it.vcpu.run.detail).toContain(detail)
    expect(it.vm.npt.lookup(GFN)).toBe(-1)
  })

  it.each([
    ["the frame before the slot", SLOT.gfn - 1],
    ["the frame after the slot", SLOT.gfn + SLOT.pages],
    ["a frame beyond 32 bits", 2 ** 36]
  ])("of %s is user space's, whatever else is wrong", (_, gfn) => {
    const it = bench()
    expect(fault(it, gfn * PAGE_SIZE, U | RMP, FINAL | ENC | VMPL)).toEqual(TO_USER)
    expect(it.vcpu.run.detail).toContain("is in no memory slot")
    expect(it.vcpu.run.gfn).toBe(gfn)
  })

  it.each([SLOT.gfn, SLOT.gfn + SLOT.pages - 1])("of the slot's frame 0x%s is mapped", (gfn) => {
    expect(fault(bench(), gfn * PAGE_SIZE, U, FINAL | ENC).handled).toBe(HANDLED.RESUME_GUEST)
  })

  it("for want of VMPL rights names level and address, and changes nothing", () => {
    const it = bench()
    const pfn = it.vm.memory.privateFrame(GFN)
    it.rmp.firmwareSet(pfn, { assigned: true, asid: ASID, gfn: GFN, validated: true, perms: [0xf, 0, 0, 0] })
    it.vm.npt.map(GFN, pfn)
    const before = it.rmp.entry(pfn)
    expect(fault(it, GFN * PAGE_SIZE + 8, U | W | P | RMP, FINAL | ENC | VMPL)).toEqual(TO_USER)
    expect(it.vcpu.run).toMatchObject({ exitReason: EXIT_REASON.MEMORY_FAULT, gfn: GFN, toPrivate: true })
    expect(it.vcpu.run.detail).toBe(`VMPL2 may not access GPA 0x${(GFN * PAGE_SIZE + 8).toString(16)}`)
    expect(it.rmp.entry(pfn)).toEqual(before)
  })

  it("with the RMP bit on a mapped page is user space's, on one not mapped it is mapped", () => {
    const it = bench()
    expect(fault(it, GFN * PAGE_SIZE, U | P | RMP, FINAL | ENC).handled).toBe(HANDLED.RESUME_GUEST)
    expect(it.vm.npt.lookup(GFN)).toBeGreaterThanOrEqual(0)
    expect(fault(it, GFN * PAGE_SIZE, U | P | RMP, FINAL | ENC)).toEqual(TO_USER)
    expect(it.vcpu.run.detail).toContain("RMP violation")
  })
})

describe("a page given back", () => {
  it("is hypervisor-owned and free again, unless it is a VMSA that runs", () => {
    const it = bench()
    fault(it, GFN * PAGE_SIZE, U, FINAL | ENC)
    const pfn = it.vm.npt.lookup(GFN)
    it.rmp.markInUse(pfn)
    expect(it.vm.reclaimPrivate(it.thread, GFN)).toBeLessThan(0)
    expect([it.vm.memory.privateFrameIfPresent(GFN), it.rmp.entry(pfn).assigned]).toEqual([pfn, true])
    it.rmp.clearInUse(pfn)
    expect(it.vm.reclaimPrivate(it.thread, GFN)).toBe(RETURN_CODE.SUCCESS)
    expect([it.vm.memory.privateFrameIfPresent(GFN), it.rmp.entry(pfn).assigned]).toEqual([-1, false])
    expect(it.vm.reclaimPrivate(it.thread, GFN)).toBe(0)
  })
})

describe("a nested page fault for want of VMPL rights, where the VM is to run VMPL0", () => {
  const asked = () => {
    const it = bench({ ...DEFAULT_VM_CONFIG, vmplFaults: "run-vmpl0" })
    const pfn = it.vm.memory.privateFrame(GFN)
    it.rmp.firmwareSet(pfn, { assigned: true, asid: ASID, gfn: GFN, validated: true, perms: [0xf, 0, 1, 0] })
    it.vm.npt.map(GFN, pfn)
    return it
  }
  const store = (it: Bench) => fault(it, GFN * PAGE_SIZE + 8, U | W | P | RMP, FINAL | ENC | VMPL)

  it("asks the strategy for it, and maps nothing", () => {
    const it = asked()
    expect(store(it)).toEqual({ ...MAPPED, maps: 0 })
    expect(it.asked.runVmpl).toEqual([0])
  })

  it("goes to user space where the strategy has no VMPL0 to run", () => {
    const it = asked()
    it.asked.answer = ERRNO.EINVAL
    expect(store(it)).toEqual(TO_USER)
    expect(it.vcpu.run.exitReason).toBe(EXIT_REASON.MEMORY_FAULT)
    expect(it.vcpu.run.detail).toBe(`VMPL2 may not access GPA 0x${(GFN * PAGE_SIZE + 8).toString(16)}`)
  })

  it.each([
    [0, HANDLED.RESUME_GUEST, EXIT_REASON.RUN_VMPL],
    [ERRNO.EINVAL, HANDLED.EXIT_TO_USER, EXIT_REASON.MEMORY_FAULT]
  ])("hears of user space whether it could: %i", (answer, handled, reason) => {
    const it = asked()
    it.asked.answer = HANDLED.EXIT_TO_USER
    expect(store(it)).toEqual(TO_USER)
    expect(it.vcpu.run.exitReason).toBe(EXIT_REASON.RUN_VMPL)
    expect(it.vcpu.complete!(it.vcpu, answer)).toBe(handled)
    expect(it.vcpu.run.exitReason).toBe(reason)
  })

  it("is user space's where VMPL0 itself lacks the right: nobody could give it", () => {
    const it = asked()
    it.vcpu.current = it.vcpu.slot(0)!
    expect(store(it)).toEqual(TO_USER)
    expect(it.asked.runVmpl).toEqual([])
  })
})
