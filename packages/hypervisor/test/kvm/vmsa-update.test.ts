import { AP_CREATION, CLEAN, PAGE_SIZE, SEV_FEATURES, VMCB } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  type ApCreateRequest,
  ERRNO,
  initProtectedGuestState,
  loadSlot,
  MP_STATE,
  noteVmsa,
  REQUEST,
  requestUpdate,
  updateProtectedGuestState
} from "../../src/index.ts"
import { type Bench, bench, ghcbMsr, SLOT, setGhcbMsr } from "./support.ts"

const GPA = 0x21 * PAGE_SIZE
const { CREATE, CREATE_ON_INIT, DESTROY } = AP_CREATION
const { SNPActive, RestrictedInjection, AlternateInjection, DebugVirtualization } = SEV_FEATURES

/** A request from another vCPU at VMPL0, which is good. */
const request = (fields: Partial<ApCreateRequest> = {}): ApCreateRequest => ({
  request: CREATE,
  vmpl: 2,
  apicId: 0,
  vmsaGpa: GPA,
  sevFeatures: SNPActive,
  fromVmpl: 0,
  fromApicId: 1,
  ...fields
})

const note = (it: Bench, fields: Partial<ApCreateRequest> = {}): number => {
  const made = request(fields)
  return noteVmsa(it.vcpu, it.vcpu.slot(made.vmpl)!, made)
}

const CASES: ReadonlyArray<readonly [string, Partial<ApCreateRequest>, number]> = [
  ["CREATE", {}, 0],
  ["CREATE_ON_INIT", { request: CREATE_ON_INIT }, 0],
  ["CREATE of VMPL0 by another vCPU at VMPL0", { vmpl: 0 }, 0],
  ["CREATE of VMPL0 by itself", { vmpl: 0, fromApicId: 0 }, ERRNO.EINVAL],
  ["CREATE of VMPL0 from VMPL1", { vmpl: 0, fromVmpl: 1 }, ERRNO.EINVAL],
  ["DESTROY of VMPL0 from VMPL2", { vmpl: 0, fromVmpl: 2, request: DESTROY }, ERRNO.EINVAL],
  ["CREATE of VMPL1 from VMPL2, which is the SVSM's affair", { vmpl: 1, fromVmpl: 2 }, 0],
  ["CREATE of the own vCPU's VMPL3", { vmpl: 3, fromApicId: 0, fromVmpl: 2 }, 0],
  ["request 3", { request: 3 }, ERRNO.EINVAL],
  ["request 0xffff", { request: 0xffff }, ERRNO.EINVAL],
  ["a VMSA off by a byte", { vmsaGpa: GPA + 1 }, ERRNO.EINVAL],
  ["a VMSA off by half a page", { vmsaGpa: GPA + 0x800 }, ERRNO.EINVAL],
  ["a VMSA at 2 MiB", { vmsaGpa: 0x200 * PAGE_SIZE }, ERRNO.EINVAL],
  ["the page after 2 MiB", { vmsaGpa: 0x201 * PAGE_SIZE }, 0],
  ["the slot's first page", { vmsaGpa: SLOT.gfn * PAGE_SIZE }, 0],
  ["the page before the slot", { vmsaGpa: (SLOT.gfn - 1) * PAGE_SIZE }, ERRNO.EINVAL],
  ["the page after the slot", { vmsaGpa: (SLOT.gfn + SLOT.pages) * PAGE_SIZE }, ERRNO.EINVAL],
  ["GPA 0", { vmsaGpa: 0 }, ERRNO.EINVAL]
]

describe("noting a VMSA", () => {
  it.each(CASES)("%s", (_, fields, result) => {
    const it = bench()
    const { vmpl, vmsaGpa } = request(fields)
    const slot = it.vcpu.slot(vmpl)!
    slot.vmsaGpa = 0x1234_5000
    const before = it.vcpu.target
    expect(note(it, fields)).toBe(result)
    // Refused or not, the level that was asked for has lost the VMSA it had; no other level has.
    expect(slot).toMatchObject({ vmsaGpa: result === 0 ? vmsaGpa : -1, waitingForReset: true })
    expect(it.vcpu.slots.filter(({ waitingForReset }) => waitingForReset)).toEqual([slot])
    // Which level runs next is decided by who starts it.
    expect(it.vcpu.target).toBe(before)
    expect(it.vcpu.requests).toBe(0)
  })

  it("DESTROY leaves the level without one, whatever the GPA and features say", () => {
    const it = bench()
    note(it)
    expect(note(it, { request: DESTROY, vmsaGpa: 1, sevFeatures: -1 })).toBe(0)
    expect(it.vcpu.slot(2)).toMatchObject({ vmsaGpa: -1, waitingForReset: true })
  })

  it("refuses a shared page", () => {
    const it = bench()
    it.vm.setMemoryAttributes(it.thread, GPA / PAGE_SIZE, false)
    expect(note(it)).toBe(ERRNO.EINVAL)
    it.vm.setMemoryAttributes(it.thread, GPA / PAGE_SIZE, true)
    expect(note(it)).toBe(0)
  })

  it.each([
    ["the same", SNPActive, SNPActive, 0],
    ["another bit that is no injection mode", SNPActive, SNPActive | DebugVirtualization, 0],
    ["restricted injection on", SNPActive, SNPActive | RestrictedInjection, ERRNO.EINVAL],
    ["alternate injection off", SNPActive | AlternateInjection, SNPActive, ERRNO.EINVAL],
    ["the mode swapped", SNPActive | RestrictedInjection, SNPActive | AlternateInjection, ERRNO.EINVAL],
    ["restricted injection on, after features with bit 31", 0x8000_0001, 0x8000_0009, ERRNO.EINVAL]
  ])("holds a level to the injection mode of its first VMSA: %s", (_, first, second, result) => {
    const it = bench()
    expect(note(it, { sevFeatures: first })).toBe(0)
    expect(it.vm.vmsaFeatures[2]).toBe(first)
    expect(note(it, { sevFeatures: second })).toBe(result)
    expect(it.vm.vmsaFeatures[2]).toBe(first)
    // Another level is free to differ.
    expect(note(it, { sevFeatures: second, vmpl: 3 })).toBe(0)
  })

  it("takes SNP as on, whatever RAX says", () => {
    const it = bench()
    note(it, { sevFeatures: 0 })
    expect(it.vm.vmsaFeatures).toEqual([-1, -1, SNPActive, -1])
  })
})

describe("the update request", () => {
  it("makes a vCPU that waits for INIT runnable; a halted one gets its state from the update", () => {
    for (const [before, after] of [
      [MP_STATE.UNINITIALIZED, MP_STATE.RUNNABLE],
      [MP_STATE.HALTED, MP_STATE.HALTED],
      [MP_STATE.RUNNABLE, MP_STATE.RUNNABLE]
    ] as const) {
      const { vcpu } = bench()
      vcpu.mpState = before
      requestUpdate(vcpu, null)
      expect([vcpu.mpState, vcpu.requests]).toEqual([after, REQUEST.UPDATE_PROTECTED_GUEST_STATE])
    }
  })

  it("puts the VMSA's frame into the VMCB, all dirty, and makes the vCPU runnable", () => {
    const it = bench()
    const { host } = it.kvm.hardware
    host.write32(it.vcpu.vmcb + VMCB.clean, CLEAN.NPT | CLEAN.ASID)
    note(it, { vmpl: 3 })
    it.vcpu.target = it.vcpu.slot(3)!
    it.vcpu.mpState = MP_STATE.HALTED
    updateProtectedGuestState(it.vcpu, it.thread)
    const pfn = it.vm.memory.privateFrameIfPresent(GPA / PAGE_SIZE)
    expect(pfn).toBeGreaterThan(0)
    expect(host.read64(it.vcpu.vmcb + VMCB.vmsa_pa)).toBe(pfn * PAGE_SIZE)
    expect(host.read32(it.vcpu.vmcb + VMCB.clean)).toBe(0)
    expect(it.vcpu).toMatchObject({ mpState: MP_STATE.RUNNABLE })
    expect(it.vcpu.current).toMatchObject({ vmpl: 3, vmsaPfn: pfn, waitingForReset: false })
  })

  it("halts the vCPU when its level was destroyed", () => {
    const it = bench()
    note(it)
    it.vcpu.target = it.vcpu.slot(2)!
    updateProtectedGuestState(it.vcpu, it.thread)
    expect(it.vcpu.mpState).toBe(MP_STATE.RUNNABLE)
    note(it, { request: DESTROY })
    updateProtectedGuestState(it.vcpu, it.thread)
    expect(it.vcpu.mpState).toBe(MP_STATE.HALTED)
    expect(it.vcpu.slot(2)).toMatchObject({ vmsaPfn: -1, waitingForReset: false })
  })

  it("carries out a creation on INIT once, when its level is first run", () => {
    const it = bench()
    const slot = it.vcpu.slot(3)!
    expect(initProtectedGuestState(it.vcpu, slot, it.thread)).toBe(false)
    note(it, { vmpl: 3, request: CREATE_ON_INIT })
    expect(initProtectedGuestState(it.vcpu, slot, it.thread)).toBe(true)
    expect(initProtectedGuestState(it.vcpu, slot, it.thread)).toBe(false)
    expect(slot.vmsaPfn).toBe(it.vm.memory.privateFrameIfPresent(GPA / PAGE_SIZE))
  })
})

describe("loading a level", () => {
  it("keeps the GHCB MSR and the pending-event fields of each", () => {
    const it = bench()
    const { host } = it.kvm.hardware
    const fields = [VMCB.int_state, VMCB.exit_int_info, VMCB.exit_int_info_err]
    const write = (value: number): void => {
      setGhcbMsr(it, value, value + 1)
      fields.forEach((field, i) => {
        host.write32(it.vcpu.vmcb + field, value + 2 + i)
      })
    }
    const read = (): ReadonlyArray<number> => [
      ...ghcbMsr(it),
      ...fields.map((field) => host.read32(it.vcpu.vmcb + field))
    ]
    const [two, zero] = [it.vcpu.slot(2)!, it.vcpu.slot(0)!]
    write(0x2000)
    loadSlot(it.vcpu, zero, it.thread)
    // SEV information: what a guest reads before it has asked.
    expect(read()).toEqual([0x3300_0001, 0x0002_0001, 0, 0, 0])
    write(0x100)
    loadSlot(it.vcpu, two, it.thread)
    expect(read()).toEqual([0x2000, 0x2001, 0x2002, 0x2003, 0x2004])
    loadSlot(it.vcpu, zero, it.thread)
    expect(read()).toEqual([0x100, 0x101, 0x102, 0x103, 0x104])
    // The same level again: nothing is lost.
    loadSlot(it.vcpu, zero, it.thread)
    expect(read()).toEqual([0x100, 0x101, 0x102, 0x103, 0x104])
  })
})
