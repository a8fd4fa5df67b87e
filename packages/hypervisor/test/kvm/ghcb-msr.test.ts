import { GHCB_MSR, msrInfo, PSC_OP, pscHi } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { ERRNO, EXIT_REASON, HANDLED } from "../../src/index.ts"
import { cpuidRegister, HV_FEATURES } from "../../src/kvm/CpuidTable.ts"
import { handleVmgexit } from "../../src/kvm/Vmgexit.ts"
import { type Bench, bench, ghcbMsr, setGhcbMsr } from "./support.ts"

const { RESUME_GUEST, EXIT_TO_USER } = HANDLED

/** One request; what the handler returned and what the guest reads afterwards. */
const request = (it: Bench, lo: number, hi = 0): { handled: number; lo: number; hi: number } => {
  setGhcbMsr(it, lo, hi)
  const handled = handleVmgexit(it.vcpu, it.thread)
  const [after, afterHi] = ghcbMsr(it)
  return { handled, lo: after, hi: afterHi }
}

const KNOWN: ReadonlyArray<number> = [
  GHCB_MSR.AP_RESET_HOLD_REQUEST,
  GHCB_MSR.SEV_INFO_REQUEST,
  GHCB_MSR.CPUID_REQUEST,
  GHCB_MSR.PREFERRED_GPA_REQUEST,
  GHCB_MSR.REGISTER_GPA_REQUEST,
  GHCB_MSR.PSC_REQUEST,
  GHCB_MSR.RUN_VMPL_REQUEST,
  GHCB_MSR.HV_FEATURES_REQUEST,
  GHCB_MSR.TERMINATION
]

describe("the GHCB MSR", () => {
  it("SEV information: versions 1 to 2, C-bit 51", () => {
    expect(request(bench(), 0x002)).toEqual({ handled: RESUME_GUEST, lo: 0x3300_0001, hi: 0x0002_0001 })
  })

  it("a preferred GHCB address: none, all ones", () => {
    expect(request(bench(), 0x010)).toEqual({ handled: RESUME_GUEST, lo: 0xffff_f011, hi: 0xffff_ffff })
  })

  it("hypervisor features: SNP, AP creation, multi-VMPL from bit 12 on", () => {
    expect(request(bench(), 0x080)).toEqual({ handled: RESUME_GUEST, lo: 0x0002_3081, hi: 0 })
  })

  it.each([
    [0x8000_001f, 0, 0xcfff_fffb],
    [0x8000_001f, 1, 0x0000_41b3],
    [0x8000_001f, 2, 1006],
    [0x8000_001f, 3, 100],
    [0, 0, 0x10],
    [0, 1, 0x6874_7541],
    [0, 2, 0x444d_4163],
    [0, 3, 0x6974_6e65],
    [0x4000_0000, 1, 0]
  ])("CPUID leaf 0x%s register %i", (leaf, register, value) => {
    const lo = ((register << 30) | 0x004) >>> 0
    // The response keeps the register number.
    expect(request(bench(), lo, leaf)).toEqual({
      handled: RESUME_GUEST,
      lo: ((register << 30) | 0x005) >>> 0,
      hi: value
    })
    expect(cpuidRegister(leaf, register, 0)).toBe(value)
  })

  it.each([0, 1, 0x20, 0xf_ffff, 0x10_0000, 0xf_ffff_ffff])(
    "registers GHCB frame 0x%s for the level that asks",
    (gfn) => {
      const it = bench()
      const [lo, hi] = [((gfn % 2 ** 20) * 4096 + 0x012) >>> 0, Math.floor(gfn / 2 ** 20)]
      expect(request(it, lo, hi)).toEqual({ handled: RESUME_GUEST, lo: lo + 1, hi })
      expect(it.vcpu.slots.map(({ registeredGhcbGfn }) => registeredGhcbGfn)).toEqual([-1, -1, gfn, -1])
    }
  )

  it.each([
    ["private", PSC_OP.PRIVATE, true],
    ["shared", PSC_OP.SHARED, false]
  ] as const)("page state change to %s goes to user space, whose answer becomes the response", (_, op, toPrivate) => {
    for (const [ret, response] of [
      [0, 0],
      [ERRNO.EINVAL, 0x8000_0000],
      [ERRNO.EBUSY, 0x8000_0000]
    ] as const) {
      const it = bench()
      const gfn = 0x12_3456
      const asked = request(it, ((gfn % 2 ** 20) * 4096 + 0x014) >>> 0, pscHi(op, gfn))
      expect(asked.handled).toBe(EXIT_TO_USER)
      expect(it.vcpu.run).toMatchObject({ exitReason: EXIT_REASON.MAP_GPA_RANGE, gfn, toPrivate })
      expect(it.vcpu.complete!(it.vcpu, ret)).toBe(HANDLED.RESUME_GUEST)
      expect(ghcbMsr(it)).toEqual([0x015, response])
    }
  })

  it.each([0, 3, 4, 5, 15])("page state change with operation %i is refused without asking user space", (op) => {
    const it = bench()
    const { handled, lo, hi } = request(it, 0x20_014, pscHi(op, 0x20))
    expect([handled, lo]).toEqual([RESUME_GUEST, 0x015])
    expect(hi).not.toBe(0)
    expect(it.vcpu.complete).toBeNull()
  })

  it.each([0, 2, 3, 4, 255])("run VMPL%i: success beforehand, bits [39:32] only", (vmpl) => {
    const it = bench()
    expect(request(it, 0xabcd_e016, 0xffff_ff00 + vmpl)).toEqual({ handled: RESUME_GUEST, lo: 0x017, hi: 0 })
    expect(it.asked.runVmpl).toEqual([vmpl])
  })

  it("run VMPL that is refused, in KVM or later in user space: error 1", () => {
    const inKernel = bench()
    inKernel.asked.answer = ERRNO.EINVAL
    expect(request(inKernel, 0x016, 3)).toEqual({ handled: RESUME_GUEST, lo: 0x017, hi: 1 })

    const inVmm = bench()
    inVmm.asked.answer = EXIT_TO_USER
    expect(request(inVmm, 0x016, 3)).toEqual({ handled: EXIT_TO_USER, lo: 0x017, hi: 0 })
    expect(inVmm.vcpu.complete!(inVmm.vcpu, ERRNO.EINVAL)).toBe(HANDLED.RESUME_GUEST)
    expect(ghcbMsr(inVmm)).toEqual([0x017, 1])
  })

  it.each([
    [0, 0],
    [1, 7],
    [15, 255]
  ])("termination, set %i reason %i, goes to user space with both", (set, reason) => {
    const it = bench()
    const { handled } = request(it, ((reason << 16) | (set << 12) | 0x100) >>> 0)
    expect(handled).toBe(EXIT_TO_USER)
    expect(it.vcpu.run.exitReason).toBe(EXIT_REASON.SYSTEM_EVENT_SEV_TERM)
    expect(it.vcpu.run.detail).toBe(`guest at VMPL2 terminates: reason set ${set}, reason ${reason}`)
  })

  it("every other code ends KVM_RUN with EINVAL and leaves the MSR as it is", () => {
    let unknown = 0
    for (let code = 1; code < 0x1000; code++) {
      if (KNOWN.includes(code)) continue
      const it = SHARED
      const lo = (0xabcd_e000 | code) >>> 0
      expect(request(it, lo, 0x1234)).toEqual({ handled: ERRNO.EINVAL, lo, hi: 0x1234 })
      expect(msrInfo(lo)).toBe(code)
      unknown++
    }
    expect(unknown).toBe(0xfff - KNOWN.length)
    expect(SHARED.vcpu.run.detail).toBe("unknown GHCB MSR request 0xfff")
  })

  it("asks the same of every level", () => {
    for (const vmpl of [0, 1, 3]) {
      const it = bench()
      it.vcpu.current = it.vcpu.slot(vmpl)!
      expect(request(it, 0x080).lo).toBe((HV_FEATURES << 12) | 0x081)
    }
  })
})

const SHARED = bench()
