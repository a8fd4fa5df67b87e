// @ghcb 0x8000001c
/** Levels whose interrupts a monitor injects: what the doorbell page tells it of them, and how the host takes over. */
import { DOORBELL, DOORBELL_DESCRIPTOR, INT_STATE, PAGE_SIZE, SEV_FEATURES, VMCB } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { APIC_REG, decodeMsi, x2apicMsr } from "../../src/apic/index.ts"
import { HANDLED, type InterruptMeter, REQUEST, type Vcpu } from "../../src/index.ts"
import { bringEventsBelow } from "../../src/kvm/LowerLevels.ts"
import { handleVmgexit } from "../../src/kvm/Vmgexit.ts"
import { type Bench, benchWithGhcb, FULL_CONFIG, fill, GHCB_GFN, GHCB_GPA, reply, setGhcbMsr } from "./support.ts"

const CONFIG = { ...FULL_CONFIG, lowerLevelEvents: true }
const DOORBELL_GFN = 0x21
const MULTIPLE = 1 << 14
const { IRR, ISR } = DOORBELL_DESCRIPTOR

interface Levels extends Bench {
  readonly lower: Vcpu
  /** System address of the monitor's doorbell page. */
  readonly page: number
  /** What the meter heard. */
  readonly heard: Array<string>
}

/** A guest vCPU with an object for the monitor at VMPL0 and one for VMPL2, which has alternate injection. */
const levels = (config = CONFIG, features: number = SEV_FEATURES.AlternateInjection): Levels => {
  const one = benchWithGhcb(config)
  const { vm, thread, kvm } = one
  const [vcpu, lower] = [0, 2].map((vmpl) => vm.createVcpu(thread, 8 + vmpl, 5, [vmpl]) as Vcpu)
  lower!.join(vcpu!.common)
  lower!.current.sevFeatures = SEV_FEATURES.SNPActive | features
  vm.vmsaFeatures[2] = lower!.current.sevFeatures
  lower!.lapic!.writeApicBase(0xfee0_0c00)
  lower!.lapic!.writeMsr(x2apicMsr(APIC_REG.SPIV), 0x1ff, 0)
  vm.setMemoryAttributes(thread, DOORBELL_GFN, false)
  vcpu!.current.doorbellGpa = DOORBELL_GFN * PAGE_SIZE
  vcpu!.current.registeredGhcbGfn = GHCB_GFN
  const heard: Array<string> = []
  const hear = (what: string) => (_: number, vector: number) => heard.push(`${what} ${vector.toString(16)}`)
  kvm.interruptMeter = {
    taken: hear("taken"),
    returned: hear("returned"),
    requested: () => {}
  } as never as InterruptMeter
  return { ...one, vcpu: vcpu!, lower: lower!, page: vm.memory.sharedFrame(DOORBELL_GFN) * PAGE_SIZE, heard }
}

const send = ({ lower }: Levels, ...vectors: ReadonlyArray<number>): void => {
  for (const vector of vectors) expect(lower.lapic!.accept(decodeMsi(0xfee0_0000, 0, vector))).toBe(true)
}
const word = ({ kvm, page }: Levels, at: number): number => kvm.hardware.host.read32(page + DOORBELL.vmpl2 + at)
const put = ({ kvm, page }: Levels, at: number, value: number): void => {
  kvm.hardware.host.write32(page + DOORBELL.vmpl2 + at, value)
}
const irrOf = (vector: number): number => IRR + 4 * ((vector >> 5) - 1)
const lapicWord = ({ lower }: Levels, register: number): number => lower.lapic!.readMsr(x2apicMsr(register))!.lo

describe("the descriptor of a lower level", () => {
  it("tells of one vector alone", () => {
    const one = levels()
    send(one, 0x41)
    expect(bringEventsBelow(one.vcpu, one.page)).toBe(true)
    expect([word(one, 0), word(one, irrOf(0x41))]).toEqual([0x41, 0])
    expect(one.kvm.hardware.host.read8(one.page + DOORBELL.per_vmpl_events)).toBe(0b10)
    expect(lapicWord(one, APIC_REG.ISR + 0x20)).toBe(0)
  })

  it("tells of several in the words alone, the one that stood alone among them", () => {
    const one = levels()
    send(one, 0x41)
    bringEventsBelow(one.vcpu, one.page)
    send(one, 0x42, 0xff)
    bringEventsBelow(one.vcpu, one.page)
    expect([word(one, 0), word(one, irrOf(0x41)), word(one, irrOf(0xff))]).toEqual([MULTIPLE, 0b110, 0x8000_0000])
    expect(one.heard).toEqual(["taken 41", "taken ff", "taken 42"])
  })

  it("has a bit for vector 31 in its status, and no more than one vector below", () => {
    const one = levels()
    send(one, 0x51, 31)
    bringEventsBelow(one.vcpu, one.page)
    expect(word(one, 0)).toBe((MULTIPLE | (1 << 31)) >>> 0)
    const low = levels()
    send(low, 0x10, 0x11)
    bringEventsBelow(low.vcpu, low.page)
    expect(word(low, 0)).toBe(0x11)
    expect(low.lower.lapic!.isRequested(0x10)).toBe(true)
    send(low, 0x51)
    bringEventsBelow(low.vcpu, low.page)
    expect([word(low, 0), low.lower.lapic!.isRequested(0x51)]).toEqual([0x11, true])
  })
})

/** The exit that gives up alternate injection, as the monitor makes it. */
const disable = (one: Levels, info1 = 0x2_3501, fields = {}): ReadonlyArray<number> => {
  fill(one, { sw_exit_code: 0x8000_001c, sw_exit_info_1: info1, sw_exit_info_2: 0, ...fields })
  setGhcbMsr(one, GHCB_GPA)
  expect(handleVmgexit(one.vcpu, one.thread)).toBe(HANDLED.RESUME_GUEST)
  return reply(one)
}

describe("disable alternate injection", () => {
  it("has the host's local APIC take over what the descriptor says, and the host inject", () => {
    const one = levels()
    const { lower } = one
    send(one, 0x71)
    put(one, 0, (MULTIPLE | (1 << 31)) >>> 0)
    put(one, irrOf(0x60), 1)
    put(one, ISR + 8, 0b10)
    one.kvm.hardware.host.write8(one.page + DOORBELL.per_vmpl_events, 0b111)
    expect(disable(one)).toEqual([0, 0])
    expect([31, 0x60, 0x71].map((vector) => lower.lapic!.isRequested(vector))).toEqual([true, true, true])
    expect([lapicWord(one, APIC_REG.ISR + 0x20), lapicWord(one, APIC_REG.TPR)]).toEqual([0b10, 0x35])
    expect(one.heard).toEqual(["returned 1f", "returned 60"])
    expect([lower.current.sevFeatures, one.vm.vmsaFeatures[2]]).toEqual([1, 1])
    expect(one.kvm.hardware.host.read32(lower.vmcb + VMCB.int_state)).toBe(INT_STATE.GUEST_INTERRUPT_MASK)
    expect(lower.requests & REQUEST.EVENT).toBe(REQUEST.EVENT)
    expect([word(one, 0), word(one, irrOf(0x60)), word(one, ISR + 8)]).toEqual([0, 0, 0])
    expect(one.kvm.hardware.host.read8(one.page + DOORBELL.per_vmpl_events)).toBe(0b101)
    // The monitor hears of this level no more.
    expect(bringEventsBelow(one.vcpu, one.page)).toBe(false)
    expect(disable(one)).toEqual([2, 5])
  })

  it("takes a vector that stands alone, an NMI, and the interrupt shadow", () => {
    const one = levels()
    put(one, 0, 0x141)
    expect(disable(one, 0x2_0002)).toEqual([0, 0])
    expect([one.lower.lapic!.isRequested(0x41), one.lower.events.nmiPending]).toEqual([true, 1])
    expect(one.kvm.hardware.host.read32(one.lower.vmcb + VMCB.int_state)).toBe(INT_STATE.INTERRUPT_SHADOW)
  })

  it.each([
    ["the monitor's own level", 0x0_0001],
    ["a level without a vCPU object", 0x3_0001],
    ["a level that there is not", 0x4_0001],
    ["a reserved bit below the TPR", 0x2_0004],
    ["a reserved bit above the level", 0x12_0001]
  ])("refuses %s", (_, info1) => {
    const one = levels()
    expect(disable(one, info1)).toEqual([2, 5])
    expect(one.lower.current.sevFeatures).toBe(SEV_FEATURES.SNPActive | SEV_FEATURES.AlternateInjection)
  })

  it("refuses a level that the host injects into anyway, and a monitor without a doorbell page", () => {
    expect(disable(levels(CONFIG, 0))).toEqual([2, 5])
    const one = levels()
    one.vcpu.current.doorbellGpa = -1
    expect(disable(one)).toEqual([2, 5])
  })

  it("refuses where one local APIC serves all levels", () => {
    const one = benchWithGhcb(CONFIG)
    one.vcpu.current.doorbellGpa = DOORBELL_GFN * PAGE_SIZE
    expect(disable({ ...one, lower: one.vcpu, page: 0, heard: [] })).toEqual([2, 5])
  })
})
