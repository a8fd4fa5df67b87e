// @ghcb 0x27, 0x37, 0x6e, 0x6f, 0x72, 0x76, 0x7b, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x8b, 0x80000001, 0x80000002, 0x80000003
// @ghcb 0x80000004, 0x80000005, 0x80000014, 0x80000015, 0x80000016, 0x80000017, 0x80000019, 0x8000001a, 0x8000001b
// @ghcb 0x8000001c, 0x8000001d, 0x80000020, 0x80000021, 0x8000ffff
/** Events of the GHCB page one by one: what they need, what they return, how they fail. Numbers are the facts' own. */
import { GHCB, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { decodeMsi } from "../../src/apic/index.ts"
import { DEFAULT_VM_CONFIG, ERRNO, EXIT_REASON, GHCB_EVENTS_REFUSED, HANDLED, MP_STATE } from "../../src/index.ts"
import { syncScratch } from "../../src/kvm/ghcb/ScratchArea.ts"
import { handleVmgexit } from "../../src/kvm/Vmgexit.ts"
import {
  type Bench,
  benchWithGhcb,
  type Fields,
  FULL_CONFIG,
  fill,
  GHCB_GPA,
  ghcbAddress,
  reply,
  setGhcbMsr,
  setValid,
  validFields
} from "./support.ts"

const { RESUME_GUEST, EXIT_TO_USER } = HANDLED
const MISSING_INPUT = 4
const INVALID_INPUT = 5
const INVALID_EVENT = 6
const INVALID_SCRATCH_AREA = 3
const BUFFER = GHCB_GPA + 0x800

const NO_INFO = { sw_exit_info_1: 0, sw_exit_info_2: 0 }
const event = (code: number, fields: Fields = {}): Fields => ({ sw_exit_code: code, ...NO_INFO, ...fields })

const vmgexit = (bench: Bench, fields: Fields): number => {
  fill(bench, fields)
  setGhcbMsr(bench, GHCB_GPA)
  return handleVmgexit(bench.vcpu, bench.thread)
}

const full = (): Bench => benchWithGhcb(FULL_CONFIG)

const field = (bench: Bench, name: keyof typeof GHCB): number =>
  bench.kvm.hardware.host.read64(ghcbAddress(bench) + GHCB[name])

const complete = (bench: Bench, ret = 0): number => {
  const then = bench.vcpu.complete!
  bench.vcpu.complete = null
  return then(bench.vcpu, ret)
}

const bytesAt = (bench: Bench, gpa: number, length: number): ReadonlyArray<number> => {
  const frame = bench.vm.frameForHost(Math.floor(gpa / PAGE_SIZE))
  const { host } = bench.kvm.hardware
  return Array.from({ length }, (_, i) => host.read8(frame * PAGE_SIZE + ((gpa + i) % PAGE_SIZE)))
}

const putBytes = (bench: Bench, gpa: number, bytes: ReadonlyArray<number>): void => {
  const frame = bench.vm.frameForHost(Math.floor(gpa / PAGE_SIZE))
  for (const [i, byte] of bytes.entries()) {
    bench.kvm.hardware.host.write8(frame * PAGE_SIZE + ((gpa + i) % PAGE_SIZE), byte)
  }
}

describe("what an event needs", () => {
  it.each<[code: number, fields: Fields, needs: ReadonlyArray<keyof typeof GHCB>]>([
    [0x37, { rax: 0x400 }, ["rax"]],
    [0x6f, { rcx: 0 }, ["rcx"]],
    [0x72, { rax: 0, rcx: 0 }, ["rax", "rcx"]],
    [0x72, { rax: 0xd, rcx: 0, xcr0: 1 }, ["rax", "rcx", "xcr0"]],
    [0x7b, { sw_exit_info_1: 0x3f8_0010, rax: 0x41 }, ["rax"]],
    [0x7b, { sw_exit_info_1: 0x3f8_0014, sw_exit_info_2: 1, sw_scratch: BUFFER }, ["sw_scratch"]],
    [0x7c, { rcx: 0x10 }, ["rcx"]],
    [0x7c, { sw_exit_info_1: 1, rcx: 0x6e0, rax: 0, rdx: 0 }, ["rcx", "rax", "rdx"]],
    [0x81, { rax: 1, cpl: 0 }, ["rax", "cpl"]],
    [0x8a, { rax: 0, rcx: 0, rdx: 0 }, ["rax", "rcx", "rdx"]],
    [0x8b, { rax: 0, rcx: 0 }, ["rax", "rcx"]],
    [0x8000_0001, { sw_exit_info_1: 0xfec0_0000, sw_exit_info_2: 4, sw_scratch: BUFFER }, ["sw_scratch"]],
    [0x8000_0002, { sw_exit_info_1: 0xfec0_0000, sw_exit_info_2: 4, sw_scratch: BUFFER }, ["sw_scratch"]],
    [0x8000_0010, { sw_scratch: BUFFER }, ["sw_scratch"]],
    [0x8000_0012, { sw_exit_info_2: 0x1000, rax: 0, rbx: 0 }, ["rax", "rbx"]],
    [0x8000_0017, { rax: 0 }, ["rax"]],
    [0x8000_001a, { rax: 0, rbx: 0 }, ["rax"]]
  ])("0x%s %o", (code, fields, needs) => {
    const served = full()
    vmgexit(served, event(code, fields))
    expect([reply(served)[0], reply(served)[1]]).not.toEqual([2, MISSING_INPUT])
    for (const name of needs) {
      const bench = full()
      fill(bench, event(code, fields))
      setValid(bench, GHCB[name], false)
      setGhcbMsr(bench, GHCB_GPA)
      expect(handleVmgexit(bench.vcpu, bench.thread)).toBe(RESUME_GUEST)
      expect(reply(bench)).toEqual([2, MISSING_INPUT])
    }
  })

  it("an SNP event of an SEV-ES guest is a missing input, as KVM's validator has it", () => {
    for (const code of [0x8000_0010, 0x8000_0011, 0x8000_0013, 0x8000_0018]) {
      const bench = benchWithGhcb({ ...FULL_CONFIG, kind: "sev-es" })
      vmgexit(bench, event(code, { rax: 1, sw_scratch: BUFFER, sw_exit_info_2: 0x1000 }))
      expect(reply(bench)).toEqual([2, MISSING_INPUT])
    }
  })

  it("what this KVM does not serve or does not offer is an invalid event", () => {
    for (const code of [...GHCB_EVENTS_REFUSED, 0x60, 0x400, 0x8000_0006, 0xf000_0000]) {
      const bench = full()
      vmgexit(bench, event(code))
      expect(reply(bench)).toEqual([2, INVALID_EVENT])
    }
    for (const code of [0x8000_0014, 0x8000_0015, 0x8000_0017]) {
      const bench = benchWithGhcb()
      vmgexit(bench, event(code, { rax: 0 }))
      expect(reply(bench)).toEqual([2, INVALID_EVENT])
    }
    const first = benchWithGhcb({ ...DEFAULT_VM_CONFIG, ghcbVersionMax: 1 })
    vmgexit(first, event(0x8000_fffd))
    expect(reply(first)).toEqual([2, INVALID_EVENT])
  })
})

describe("registers", () => {
  it("CPUID returns four; leaf 0xD hangs on XCR0", () => {
    const bench = full()
    vmgexit(bench, event(0x72, { rax: 0x8000_001f, rcx: 0 }))
    expect(validFields(bench)).toEqual(["rax", "rcx", "rdx", "rbx", "sw_exit_info_1", "sw_exit_info_2"])
    expect([field(bench, "rbx") & 0x3f, field(bench, "rbx") >>> 12, field(bench, "rcx")]).toEqual([51, 4, 1006])
    const sizes = [1, 7].map((xcr0) => {
      vmgexit(bench, event(0x72, { rax: 0xd, rcx: 0, xcr0 }))
      return field(bench, "rbx")
    })
    expect(sizes).toEqual([0x240, 0x340])
    vmgexit(bench, event(0x72, { rax: 0x1234_5678, rcx: 0 }))
    expect([field(bench, "rax"), field(bench, "rdx")]).toEqual([0, 0])
  })

  it("the TSC is virtual time at 2 GHz", () => {
    const bench = full()
    bench.thread.time = 3_000_000_000
    for (const code of [0x6e, 0x87]) {
      vmgexit(bench, event(code))
      expect(field(bench, "rdx") * 2 ** 32 + field(bench, "rax")).toBe(6_000_000_000)
    }
    expect(validFields(bench)).toContain("rcx")
    vmgexit(bench, event(0x7c, { rcx: 0x10 }))
    expect([field(bench, "rax"), field(bench, "rdx")]).toEqual([6_000_000_000 % 2 ** 32, 1])
  })

  it("RDPMC, and an MSR that KVM does not serve, make the guest raise #GP(0)", () => {
    const GP = 0x8000_0b0d
    const bench = full()
    for (const fields of [
      event(0x6f, { rcx: 0 }),
      event(0x7c, { rcx: 0xc001_0015 }),
      event(0x7c, { sw_exit_info_1: 1, rcx: 0x10, rax: 0, rdx: 0 }),
      event(0x37, { rax: 2 ** 32 })
    ]) {
      expect(vmgexit(bench, fields)).toBe(RESUME_GUEST)
      expect(reply(bench)).toEqual([1, GP])
    }
  })

  it("MSRs of the local APIC: x2APIC by APIC_BASE, then its registers", () => {
    const bench = full()
    vmgexit(bench, event(0x7c, { rcx: 0x1b }))
    expect(field(bench, "rax")).toBe(0xfee0_0900)
    vmgexit(bench, event(0x7c, { sw_exit_info_1: 1, rcx: 0x1b, rax: 0xfee0_0d00, rdx: 0 }))
    expect(reply(bench)).toEqual([0, 0])
    vmgexit(bench, event(0x7c, { sw_exit_info_1: 1, rcx: 0x808, rax: 0x50, rdx: 0 }))
    expect(bench.vcpu.lapic!.getTpr()).toBe(0x50)
    vmgexit(bench, event(0x7c, { rcx: 0x808 }))
    expect(field(bench, "rax")).toBe(0x50)
  })

  it("DR7 is what the guest told last", () => {
    const bench = full()
    vmgexit(bench, event(0x27))
    expect(field(bench, "rax")).toBe(0x400)
    vmgexit(bench, event(0x37, { rax: 0x401 }))
    vmgexit(bench, event(0x27))
    expect(field(bench, "rax")).toBe(0x401)
  })

  it("VMMCALL answers in RAX: -ENOSYS, and -EPERM to a user", () => {
    const bench = full()
    const rax = (fields: Fields): bigint => {
      vmgexit(bench, event(0x81, fields))
      const { host } = bench.kvm.hardware
      const at = ghcbAddress(bench) + GHCB.rax
      return BigInt.asIntN(64, (BigInt(host.read32(at + 4)) << 32n) | BigInt(host.read32(at)))
    }
    expect([rax({ rax: 77, cpl: 0 }), rax({ rax: 77, cpl: 3 }), rax({ rax: 1, cpl: 0 })]).toEqual([-1000n, -1n, 0n])
  })

  it.each([0x76, 0x89, 0x8a, 0x8b])("0x%s is done at once", (code) => {
    const bench = full()
    vmgexit(bench, event(code, { rax: 0, rcx: 0, rdx: 0 }))
    expect(reply(bench)).toEqual([0, 0])
  })
})

describe("port I/O", () => {
  it("goes to user space with the bytes of RAX, or brings them back", () => {
    const bench = full()
    expect(vmgexit(bench, event(0x7b, { sw_exit_info_1: 0x3f8_0020, rax: 0x1_4142 }))).toBe(EXIT_TO_USER)
    const { run } = bench.vcpu
    expect([run.exitReason, run.address, run.size, run.isWrite, ...run.data]).toEqual([
      EXIT_REASON.IO,
      0x3f8,
      2,
      true,
      0x42,
      0x41
    ])
    expect(complete(bench)).toBe(RESUME_GUEST)
    expect(vmgexit(bench, event(0x7b, { sw_exit_info_1: 0x3f8_0041 }))).toBe(EXIT_TO_USER)
    run.data.set([1, 2, 3, 4])
    expect(complete(bench)).toBe(RESUME_GUEST)
    expect(field(bench, "rax")).toBe(0x0403_0201)
    expect(validFields(bench)).toEqual(["rax", "sw_exit_info_1", "sw_exit_info_2"])
  })

  it("of several operand sizes at once, or of none, is invalid input", () => {
    for (const info of [0x3f8_0030, 0x3f8_0000, 0x3f8_0070]) {
      const bench = full()
      vmgexit(bench, event(0x7b, { sw_exit_info_1: info, rax: 0 }))
      expect(reply(bench)).toEqual([2, INVALID_INPUT])
    }
  })

  it("a string goes through the page's buffer, which the guest may change in between", () => {
    const bench = full()
    putBytes(bench, BUFFER, [0x61, 0x62, 0x63])
    const outs = event(0x7b, { sw_exit_info_1: 0x3f8_001c, sw_exit_info_2: 3, sw_scratch: BUFFER })
    expect(vmgexit(bench, outs)).toBe(EXIT_TO_USER)
    expect([bench.vcpu.run.count, ...bench.vcpu.run.data]).toEqual([3, 0x61, 0x62, 0x63])
    const ins = event(0x7b, { sw_exit_info_1: 0x3f8_001d, sw_exit_info_2: 2, sw_scratch: BUFFER + 4 })
    complete(bench)
    vmgexit(bench, ins)
    bench.vcpu.run.data.set([7, 8])
    complete(bench)
    expect(bytesAt(bench, BUFFER, 6)).toEqual([0x61, 0x62, 0x63, 0, 7, 8])
  })

  it("an area elsewhere is copied in, and goes back just before the next VMRUN", () => {
    const bench = full()
    const AREA = 0x30_0000
    bench.vm.setMemoryAttributes(bench.thread, AREA / PAGE_SIZE, false)
    bench.vm.memory.sharedFrame(AREA / PAGE_SIZE)
    vmgexit(bench, event(0x7b, { sw_exit_info_1: 0x3f8_001d, sw_exit_info_2: 2, sw_scratch: AREA }))
    bench.vcpu.run.data.set([7, 8])
    complete(bench)
    expect(bytesAt(bench, AREA, 2)).toEqual([0, 0])
    syncScratch(bench.vcpu)
    expect(bytesAt(bench, AREA, 2)).toEqual([7, 8])
  })

  it.each([
    ["0", 0, 1],
    ["in the page, but not in its buffer", GHCB_GPA + 0x7ff, 1],
    ["past the end of the buffer", GHCB_GPA + 0xff0 - 1, 2],
    ["more than 64 KiB elsewhere", 0x30_0000, 0x1_0001],
    ["outside of memory", 2 ** 40, 4]
  ])("an area at %s is no scratch area", (_, scratch, count) => {
    const bench = full()
    vmgexit(bench, event(0x7b, { sw_exit_info_1: 0x3f8_001c, sw_exit_info_2: count, sw_scratch: scratch }))
    expect(reply(bench)).toEqual([2, INVALID_SCRATCH_AREA])
  })
})

describe("MMIO", () => {
  const mmio = (write: boolean, gpa: number, length: number): Fields =>
    event(write ? 0x8000_0002 : 0x8000_0001, { sw_exit_info_1: gpa, sw_exit_info_2: length, sw_scratch: BUFFER })

  it("of the I/O APIC and of the local APIC stays in the kernel", () => {
    const bench = full()
    putBytes(bench, BUFFER, [1, 0, 0, 0])
    expect(vmgexit(bench, mmio(true, 0xfec0_0000, 4))).toBe(RESUME_GUEST)
    expect(vmgexit(bench, mmio(false, 0xfec0_0010, 4))).toBe(RESUME_GUEST)
    expect(bytesAt(bench, BUFFER, 4)).toEqual([0x11, 0, 23, 0])
    expect(vmgexit(bench, mmio(false, 0xfee0_0030, 4))).toBe(RESUME_GUEST)
    expect(bytesAt(bench, BUFFER, 2)).toEqual([0x14, 0])
  })

  it("elsewhere goes to user space, 8 bytes at a time", () => {
    const bench = full()
    putBytes(bench, BUFFER, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    expect(vmgexit(bench, mmio(true, 0xd000_0000, 10))).toBe(EXIT_TO_USER)
    expect([bench.vcpu.run.address, ...bench.vcpu.run.data]).toEqual([0xd000_0000, 1, 2, 3, 4, 5, 6, 7, 8])
    expect(complete(bench)).toBe(EXIT_TO_USER)
    expect([bench.vcpu.run.address, ...bench.vcpu.run.data]).toEqual([0xd000_0008, 9, 10])
    expect(complete(bench)).toBe(RESUME_GUEST)
    expect(reply(bench)).toEqual([0, 0])
    vmgexit(bench, mmio(false, 0xd000_0000, 2))
    bench.vcpu.run.data.set([0xaa, 0xbb])
    complete(bench)
    expect(bytesAt(bench, BUFFER, 3)).toEqual([0xaa, 0xbb, 3])
  })

  it("of no bytes is invalid input", () => {
    const bench = full()
    vmgexit(bench, mmio(false, 0xd000_0000, 0))
    expect(reply(bench)).toEqual([2, INVALID_INPUT])
  })
})

describe("processors", () => {
  it("AP reset hold answers 0 and waits", () => {
    const bench = full()
    expect(vmgexit(bench, event(0x8000_0004))).toBe(RESUME_GUEST)
    expect(reply(bench)).toEqual([0, 0])
    expect(bench.vcpu.mpState).toBe(MP_STATE.AP_RESET_HOLD)
  })

  it("keeps the AP jump table's address", () => {
    const bench = full()
    vmgexit(bench, event(0x8000_0005, { sw_exit_info_1: 0, sw_exit_info_2: 0x12_3456_7000 }))
    vmgexit(bench, event(0x8000_0005, { sw_exit_info_1: 1 }))
    expect(reply(bench)).toEqual([0, 0x12_3456_7000])
    vmgexit(bench, event(0x8000_0005, { sw_exit_info_1: 2 }))
    expect(reply(bench)).toEqual([2, INVALID_INPUT])
  })

  it("the APIC ID list: first its size, then count and IDs into shared memory", () => {
    const bench = full()
    for (const id of [4, 1]) bench.vm.createVcpu(bench.thread, id, id, [0])
    vmgexit(bench, event(0x8000_0017, { rax: 0 }))
    expect([field(bench, "rax"), ...reply(bench)]).toEqual([1, 0, 0])
    const LIST = 0x31_0000
    const list = event(0x8000_0017, { sw_exit_info_1: LIST, rax: 1 })
    vmgexit(bench, list)
    expect(reply(bench)).toEqual([2, INVALID_INPUT])
    bench.vm.setMemoryAttributes(bench.thread, LIST / PAGE_SIZE, false)
    vmgexit(bench, list)
    expect(bytesAt(bench, LIST, 16)).toEqual([3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0])
    vmgexit(bench, event(0x8000_0017, { sw_exit_info_1: LIST + 8, rax: 1 }))
    expect(reply(bench)).toEqual([2, INVALID_INPUT])
  })
})

describe("restricted injection and what belongs to it", () => {
  it("the doorbell page: no preference, set, asked for, cleared", () => {
    const bench = full()
    const ONES = 2 ** 64
    const ask = (operation: number, gpa = 0): ReadonlyArray<number> => {
      vmgexit(bench, event(0x8000_0014, { sw_exit_info_1: operation, sw_exit_info_2: gpa }))
      return reply(bench)
    }
    expect(ask(0)).toEqual([0, ONES])
    expect(ask(2)).toEqual([0, ONES])
    expect(ask(1, 0x32_0000)).toEqual([2, INVALID_INPUT])
    bench.vm.setMemoryAttributes(bench.thread, 0x320, false)
    expect(ask(1, 0x32_0004)).toEqual([2, INVALID_INPUT])
    expect(ask(1, 0x32_0000)).toEqual([0, 0x32_0000])
    expect(ask(2)).toEqual([0, 0x32_0000])
    expect(ask(3)).toEqual([0, ONES])
    expect(ask(2)).toEqual([0, ONES])
    expect(ask(4)).toEqual([2, INVALID_INPUT])
  })

  it("an #HV IPI reaches the APIC that the ICR names", () => {
    const bench = full()
    const other = bench.vm.createVcpu(bench.thread, 1, 1, [0, 1, 2, 3])
    if (typeof other === "number") throw new Error("no vCPU")
    other.lapic!.write(0xf0, 0x1ff)
    vmgexit(bench, event(0x8000_0015, { sw_exit_info_1: 1 * 2 ** 32 + 0x4031 }))
    expect(reply(bench)).toEqual([0, 0])
    expect(other.lapic!.highestPending()).toBe(0x31)
  })

  it("NMI complete lets the next NMI in", () => {
    const bench = full()
    bench.vcpu.events.nmiMasked = true
    vmgexit(bench, event(0x8000_0003))
    expect([bench.vcpu.events.nmiMasked, ...reply(bench)]).toEqual([false, 0, 0])
  })

  it("Secure AVIC keeps the backing page of this vCPU, and gives it back", () => {
    const bench = full()
    const ones = (): void => {
      const { host } = bench.kvm.hardware
      host.write64(ghcbAddress(bench) + GHCB.rax, 0xffff_ffff, 0xffff_ffff)
    }
    const secureAvic = (operation: number, rbx: number): ReadonlyArray<number> => {
      fill(bench, event(0x8000_001a, { sw_exit_info_1: operation, rax: 0, rbx }))
      ones()
      setGhcbMsr(bench, GHCB_GPA)
      handleVmgexit(bench.vcpu, bench.thread)
      return reply(bench)
    }
    expect(secureAvic(0, 0x33_0000)).toEqual([0, 0])
    expect(bench.vcpu.current.secureAvicGpa).toBe(0x33_0000)
    expect(secureAvic(0, 0x33_0001)).toEqual([2, INVALID_INPUT])
    expect(secureAvic(0, 2 ** 40)).toEqual([2, INVALID_INPUT])
    expect(secureAvic(1, 0)).toEqual([0, 0])
    expect(field(bench, "rbx")).toBe(0x33_0000)
    expect(secureAvic(2, 0)).toEqual([2, INVALID_INPUT])
    vmgexit(bench, event(0x8000_001a, { sw_exit_info_1: 0, rax: 3, rbx: 0x33_0000 }))
    expect(reply(bench)).toEqual([2, INVALID_INPUT])
  })

  it("an event that the guest does not support ends KVM_RUN", () => {
    const bench = full()
    expect(vmgexit(bench, event(0x8000_ffff, { sw_exit_info_1: 0x8c }))).toBe(ERRNO.EINVAL)
    expect(bench.vcpu.run.detail).toContain("0x8c")
  })

  it("an interrupt from outside reaches the vCPUs that hold its level", () => {
    const bench = full()
    const upper = bench.vm.createVcpu(bench.thread, 513, 0, [1])
    if (typeof upper === "number") throw new Error("no vCPU")
    for (const { lapic } of [bench.vcpu, upper]) lapic!.write(0xf0, 0x1ff)
    const message = decodeMsi(0xfee0_0000, 0, 0x41)
    bench.vm.irqchip!.deliver({ message, vmpl: 1 })
    expect([bench.vcpu, upper].map(({ lapic }) => lapic!.highestPending())).toEqual([0x41, 0x41])
    bench.vm.irqchip!.deliver({ message: { ...message, vector: 0x52 }, vmpl: 0 })
    expect([bench.vcpu, upper].map(({ lapic }) => lapic!.highestPending())).toEqual([0x52, 0x41])
  })
})
