// @ghcb msr 0x002, msr 0x004, msr 0x006, msr 0x010, msr 0x012, msr 0x014, msr 0x016, msr 0x080, msr 0x100
import {
  GHCB_MSR,
  GHCB_VERSION,
  msrGfn,
  msrInfo,
  msrWithGfnHi,
  msrWithGfnLo,
  PSC_OP,
  pscGfn,
  pscOp,
  sevInfoHi,
  sevInfoLo,
  VMCB
} from "@vmpl-lab/sev-es"
import { assert, type HostThread } from "@vmpl-lab/sim"
import { holdUntilSipi } from "./ApReset.ts"
import { CBIT_POSITION, cpuidRegister } from "./CpuidTable.ts"
import { ERRNO, HANDLED } from "./Errno.ts"
import { AP_RESET_HOLD, EXIT_REASON, type Vcpu } from "./Vcpu.ts"

/**
 * The GHCB MSR protocol: request and response are both in the MSR, which lives in the VMCB.
 * @returns HANDLED, or EINVAL for a code that KVM does not know (the MSR is left as it is)
 * @spec GHCB "MSR protocol"
 */
export const handleVmgexitMsr = (vcpu: Vcpu, thread: HostThread, lo: number, hi: number): number => {
  const { trace, hardware } = vcpu.vm.kvm
  trace?.msrProtocolEnter(thread, vcpu.id, lo, hi)
  const handled = serve(vcpu, thread, lo, hi)
  if (trace !== null) {
    const msr = vcpu.vmcb + VMCB.ghcb_gpa
    trace.msrProtocolExit(thread, vcpu.id, hardware.host.read32(msr), hardware.host.read32(msr + 4), handled)
  }
  return handled
}

/** Requests that only an SNP guest can make: another one that does is ended. */
const OF_SNP: ReadonlySet<number> = new Set([
  GHCB_MSR.PREFERRED_GPA_REQUEST,
  GHCB_MSR.REGISTER_GPA_REQUEST,
  GHCB_MSR.PSC_REQUEST
])

const serve = (vcpu: Vcpu, thread: HostThread, lo: number, hi: number): number => {
  const { config } = vcpu.vm
  if (config.kind !== "snp" && OF_SNP.has(msrInfo(lo)))
    return terminate(vcpu, `makes SNP request 0x${msrInfo(lo).toString(16)}`)
  switch (msrInfo(lo)) {
    case GHCB_MSR.SEV_INFO_REQUEST:
      respond(vcpu, sevInfoLo(CBIT_POSITION), sevInfoHi(config.ghcbVersionMax, GHCB_VERSION.MIN))
      return HANDLED.RESUME_GUEST
    case GHCB_MSR.CPUID_REQUEST: {
      const register = lo >>> 30
      respond(vcpu, ((register << 30) | GHCB_MSR.CPUID_RESPONSE) >>> 0, cpuidRegister(hi, register, vcpu.apicId))
      return HANDLED.RESUME_GUEST
    }
    case GHCB_MSR.AP_RESET_HOLD_REQUEST:
      // 0 in [63:12] until a SIPI comes.
      respond(vcpu, GHCB_MSR.AP_RESET_HOLD_RESPONSE, 0)
      holdUntilSipi(vcpu, AP_RESET_HOLD.MSR_PROTO, -1)
      return HANDLED.RESUME_GUEST
    case GHCB_MSR.PREFERRED_GPA_REQUEST:
      // All ones: no preference.
      respond(vcpu, (0xffff_f000 | GHCB_MSR.PREFERRED_GPA_RESPONSE) >>> 0, 0xffff_ffff)
      return HANDLED.RESUME_GUEST
    case GHCB_MSR.REGISTER_GPA_REQUEST: {
      const gfn = msrGfn(lo, hi)
      vcpu.current.registeredGhcbGfn = gfn
      respond(vcpu, msrWithGfnLo(GHCB_MSR.REGISTER_GPA_RESPONSE, gfn), msrWithGfnHi(gfn))
      return HANDLED.RESUME_GUEST
    }
    case GHCB_MSR.HV_FEATURES_REQUEST:
      respond(vcpu, ((config.hvFeatures << 12) | GHCB_MSR.HV_FEATURES_RESPONSE) >>> 0, config.hvFeatures >>> 20)
      return HANDLED.RESUME_GUEST
    case GHCB_MSR.PSC_REQUEST:
      return pageStateChange(vcpu, lo, hi)
    case GHCB_MSR.RUN_VMPL_REQUEST:
      return runVmplMsr(vcpu, thread, hi)
    case GHCB_MSR.TERMINATION:
      return terminate(vcpu, `terminates: reason set ${(lo >>> 12) & 0xf}, reason ${(lo >>> 16) & 0xff}`)
    default:
      vcpu.run.detail = `unknown GHCB MSR request 0x${msrInfo(lo).toString(16)}`
      return ERRNO.EINVAL
  }
}

/** KVM_SYSTEM_EVENT_SEV_TERM. */
const terminate = (vcpu: Vcpu, what: string): number => {
  vcpu.run.exitReason = EXIT_REASON.SYSTEM_EVENT_SEV_TERM
  vcpu.run.detail = `guest at VMPL${vcpu.current.vmpl} ${what}`
  return HANDLED.EXIT_TO_USER
}

/** Stores the response. The VMCB is KVM's own page, so the store cannot fault. */
const respond = (vcpu: Vcpu, lo: number, hi: number): void => {
  const stored = vcpu.vm.kvm.hardware.host.write64(vcpu.vmcb + VMCB.ghcb_gpa, lo, hi)
  assert(stored === 0, "KVM's own VMCB page is hypervisor-owned")
}

/** One 4 KiB page to private or shared: user space decides and sets the attribute; the answer comes on re-entry. */
const pageStateChange = (vcpu: Vcpu, lo: number, hi: number): number => {
  const operation = pscOp(hi)
  if (operation !== PSC_OP.PRIVATE && operation !== PSC_OP.SHARED) {
    respond(vcpu, GHCB_MSR.PSC_RESPONSE, PSC_ERROR)
    return HANDLED.RESUME_GUEST
  }
  vcpu.run.exitReason = EXIT_REASON.MAP_GPA_RANGE
  vcpu.run.gfn = pscGfn(lo, hi)
  vcpu.run.pages = 1
  vcpu.run.toPrivate = operation === PSC_OP.PRIVATE
  vcpu.complete = (self, ret) => {
    respond(self, GHCB_MSR.PSC_RESPONSE, ret === 0 ? 0 : PSC_ERROR)
    return HANDLED.RESUME_GUEST
  }
  return HANDLED.EXIT_TO_USER
}

/** Bit 63 of the response: the change failed. */
const PSC_ERROR = 0x8000_0000

/** Run VMPL, MSR form: VMPL in [39:32]. The response says success beforehand and is corrected on failure. */
const runVmplMsr = (vcpu: Vcpu, thread: HostThread, hi: number): number => {
  const { meter } = vcpu.vm.kvm
  const vmpl = hi & 0xff
  respond(vcpu, GHCB_MSR.RUN_VMPL_RESPONSE, 0)
  if (vmpl !== vcpu.current.vmpl) meter.switchRequested(vcpu.apicId, vcpu.current.vmpl, vmpl)
  const { operations } = vcpu.vm
  const handled = operations.runVmpl(vcpu, thread, vmpl)
  if (handled < 0) {
    meter.switchRefused(vcpu.apicId, thread)
    if (operations.runVmplMsr === "KVM_RUN fails") {
      vcpu.run.detail = `VMPL${vcpu.current.vmpl} of APIC ID ${vcpu.apicId} asks for VMPL${vmpl}, which has no vCPU`
      return handled
    }
    respond(vcpu, GHCB_MSR.RUN_VMPL_RESPONSE, RUN_VMPL_ERROR)
    return HANDLED.RESUME_GUEST
  }
  if (vcpu.run.exitReason === EXIT_REASON.RUN_VMPL && handled === HANDLED.EXIT_TO_USER) {
    vcpu.complete = (self, ret) => {
      if (ret < 0) {
        meter.switchRefused(self.apicId, thread)
        respond(self, GHCB_MSR.RUN_VMPL_RESPONSE, RUN_VMPL_ERROR)
      }
      return HANDLED.RESUME_GUEST
    }
  }
  return handled
}

const RUN_VMPL_ERROR = 1
