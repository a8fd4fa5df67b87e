import { AP_CREATION, GHCB, NAE, PAGE_SIZE, REASON, REPLY, toNumber, validByte, validMask } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import type { ApCreateRequest } from "./ApCreateRequest.ts"
import { HV_FEATURES } from "./CpuidTable.ts"
import { ERRNO, HANDLED } from "./Errno.ts"
import { EXIT_REASON, type Vcpu } from "./Vcpu.ts"

/**
 * The GHCB page protocol. Checks in KVM's order: GPA zero, page mappable, registered, usage, the three exit fields
 * valid, the event's own fields valid, event known.
 * @spec GHCB "VMGEXIT events"; order: Linux sev_es_validate_vmgexit
 */
export const handleVmgexitPage = (vcpu: Vcpu, thread: HostThread, gpaLo: number, gpaHi: number): number => {
  const { vm } = vcpu
  const { host } = vm.kvm.hardware
  const gpa = toNumber(gpaLo, gpaHi)
  if (gpa === 0) return HANDLED.RESUME_GUEST
  const frame = vm.frameForHost(gpa / PAGE_SIZE)
  if (frame < 0) return HANDLED.RESUME_GUEST
  if (gpa / PAGE_SIZE !== vcpu.current.registeredGhcbGfn) {
    vcpu.run.detail = `GHCB at GPA 0x${gpa.toString(16)} is not the registered one`
    return ERRNO.EINVAL
  }
  const ghcb = frame * PAGE_SIZE
  if (host.read32(ghcb + GHCB.ghcb_usage) !== 0) return refuse(vcpu, ghcb, REASON.INVALID_USAGE)
  const given = (offset: number): boolean => (host.read8(ghcb + validByte(offset)) & validMask(offset)) !== 0
  if (!(given(GHCB.sw_exit_code) && given(GHCB.sw_exit_info_1) && given(GHCB.sw_exit_info_2))) {
    return refuse(vcpu, ghcb, REASON.MISSING_INPUT)
  }
  const code = host.read32(ghcb + GHCB.sw_exit_code)
  const codeHi = host.read32(ghcb + GHCB.sw_exit_code + 4)
  const info1Lo = host.read32(ghcb + GHCB.sw_exit_info_1)
  const info1Hi = host.read32(ghcb + GHCB.sw_exit_info_1 + 4)
  const info2 = host.read64(ghcb + GHCB.sw_exit_info_2)
  const rax = given(GHCB.rax) ? host.read64(ghcb + GHCB.rax) : -1
  if (codeHi !== 0) return refuse(vcpu, ghcb, REASON.INVALID_EVENT)

  switch (code) {
    case NAE.SNP_RUN_VMPL:
      return runVmplPage(vcpu, thread, ghcb, info1Lo)
    case NAE.SNP_AP_CREATION: {
      const request = info1Lo & 0xffff
      if (request !== AP_CREATION.DESTROY && rax < 0) return refuse(vcpu, ghcb, REASON.MISSING_INPUT)
      return apCreation(vcpu, thread, ghcb, {
        request,
        vmpl: (info1Lo >>> 16) & 0xf,
        apicId: info1Hi,
        vmsaGpa: info2,
        sevFeatures: rax,
        fromVmpl: vcpu.current.vmpl,
        fromApicId: vcpu.apicId
      })
    }
    case NAE.TERMINATION_REQUEST:
      vcpu.run.exitReason = EXIT_REASON.SYSTEM_EVENT_SEV_TERM
      vcpu.run.detail = `guest at VMPL${vcpu.current.vmpl} terminates: reason set ${info1Lo & 0xf}, reason ${(info1Lo >>> 4) & 0xff}`
      return HANDLED.EXIT_TO_USER
    case NAE.HV_FEATURES:
      return reply(vcpu, ghcb, REPLY.NO_ACTION, HV_FEATURES)
    default:
      return refuse(vcpu, ghcb, REASON.INVALID_EVENT)
  }
}

/**
 * Writes the answer into the GHCB: the bitmap first cleared, then the bits of what is returned. A guest that has made
 * the page private meanwhile makes the store fault: KVM_RUN fails with EFAULT.
 */
const reply = (vcpu: Vcpu, ghcb: number, info1: number, info2: number): number => {
  const { host } = vcpu.vm.kvm.hardware
  let fault = 0
  for (let word = 0; word < 4; word++) fault |= host.write32(ghcb + GHCB.valid_bitmap + 4 * word, 0)
  fault |= host.write64(ghcb + GHCB.sw_exit_info_1, info1, 0)
  fault |= host.write64(ghcb + GHCB.sw_exit_info_2, info2, 0)
  const byte = validByte(GHCB.sw_exit_info_1)
  fault |= host.write8(ghcb + byte, validMask(GHCB.sw_exit_info_1) | validMask(GHCB.sw_exit_info_2))
  if (fault === 0) return HANDLED.RESUME_GUEST
  vcpu.run.detail = `GHCB frame 0x${ghcb.toString(16)} is no longer hypervisor-owned`
  return ERRNO.EFAULT
}

const refuse = (vcpu: Vcpu, ghcb: number, reason: number): number => reply(vcpu, ghcb, REPLY.MALFORMED_INPUT, reason)

/** Run VMPL, page form: VMPL in info1[31:0]. Failure is malformed input with reason 0, as the S1 series answers. */
const runVmplPage = (vcpu: Vcpu, thread: HostThread, ghcb: number, vmpl: number): number => {
  const { meter } = vcpu.vm.kvm
  const replied = reply(vcpu, ghcb, REPLY.NO_ACTION, 0)
  if (replied < 0) return replied
  if (vmpl !== vcpu.current.vmpl) meter.switchRequested(vcpu.apicId, vcpu.current.vmpl, vmpl)
  const handled = vcpu.vm.operations.runVmpl(vcpu, thread, vmpl)
  const refused = (self: Vcpu): number => {
    meter.switchRefused(self.apicId, thread)
    return reply(self, ghcb, REPLY.MALFORMED_INPUT, 0)
  }
  if (handled < 0) return refused(vcpu)
  if (handled === HANDLED.EXIT_TO_USER) vcpu.complete = (self, ret) => (ret < 0 ? refused(self) : 0)
  return handled
}

const apCreation = (vcpu: Vcpu, thread: HostThread, ghcb: number, request: ApCreateRequest): number => {
  const replied = reply(vcpu, ghcb, REPLY.NO_ACTION, 0)
  if (replied < 0) return replied
  const { meter } = vcpu.vm.kvm
  meter.creationRequested(request)
  const handled = vcpu.vm.operations.apCreate(vcpu, thread, request)
  const refused = (self: Vcpu): number => {
    meter.creationRefused(request, thread)
    return reply(self, ghcb, REPLY.MALFORMED_INPUT, REASON.INVALID_INPUT)
  }
  if (handled < 0) return refused(vcpu)
  if (handled === HANDLED.EXIT_TO_USER) vcpu.complete = (self, ret) => (ret < 0 ? refused(self) : 0)
  return handled
}
