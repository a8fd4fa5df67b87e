// @ghcb 0x80000018, 0x8000001a
import { HV_FEATURE, NAE, PAGE_SIZE, SECURE_AVIC } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { HANDLED } from "../Errno.ts"
import { EXIT_REASON, type Vcpu } from "../Vcpu.ts"
import type { GhcbEvent } from "./GhcbEvent.ts"
import type { GhcbExit } from "./GhcbExit.ts"
import { acceptsGuestRequest, extendedGuestRequest, guestRequest } from "./GuestRequest.ts"
import { pageStateChange } from "./PageStateChange.ts"
import { done, invalidInput, refuse } from "./Reply.ts"

/** Run VMPL: VMPL in info1[31:0]. Failure is malformed input with the reason that the strategy gives. */
const runVmpl = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const { meter } = vcpu.vm.kvm
  const vmpl = exit.info1Lo
  const replied = done(vcpu, exit)
  if (replied < 0) return replied
  if (vmpl !== vcpu.current.vmpl) meter.switchRequested(vcpu.apicId, vcpu.current.vmpl, vmpl)
  const { operations } = vcpu.vm
  const handled = operations.runVmpl(vcpu, thread, vmpl)
  if (handled < 0) return runVmplRefused(vcpu, thread, exit)
  if (vcpu.run.exitReason === EXIT_REASON.RUN_VMPL && handled === HANDLED.EXIT_TO_USER) {
    vcpu.complete = (self, ret) => (ret < 0 ? runVmplRefused(self, thread, exit) : HANDLED.RESUME_GUEST)
  }
  return handled
}

const runVmplRefused = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const { kvm, operations } = vcpu.vm
  kvm.meter.switchRefused(vcpu.apicId, thread)
  return refuse(vcpu, exit, operations.runVmplReason)
}

const ALL_ONES = 0xffff_ffff
const isThisVcpu = ([lo, hi]: readonly [number, number]): boolean => lo === ALL_ONES && hi === ALL_ONES

/**
 * Secure AVIC: the host is told where the backing page of this vCPU is.
 * @spec-silent the register in which the previous page comes back: RBX, in which the new one came
 */
const secureAvic = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  const { current } = vcpu
  if (!isThisVcpu(exit.register("rax"))) return invalidInput(vcpu, exit)
  if (exit.info1 === SECURE_AVIC.REGISTER) {
    const gpa = exit.value("rbx")
    if (!exit.isValid(RBX) || gpa % PAGE_SIZE !== 0) return invalidInput(vcpu, exit)
    if (!vcpu.vm.inMemorySlot(gpa / PAGE_SIZE)) return invalidInput(vcpu, exit)
    current.secureAvicGpa = gpa
    return done(vcpu, exit)
  }
  if (exit.info1 !== SECURE_AVIC.UNREGISTER) return invalidInput(vcpu, exit)
  const before = current.secureAvicGpa
  current.secureAvicGpa = -1
  if (before < 0) exit.put("rbx", ALL_ONES, ALL_ONES)
  else exit.put("rbx", before % 0x1_0000_0000, Math.floor(before / 0x1_0000_0000))
  return done(vcpu, exit)
}

const RBX = 0x318

export const SNP_EVENTS: ReadonlyArray<GhcbEvent> = [
  {
    code: NAE.PAGE_STATE_CHANGE,
    name: "page state change",
    needs: ["sw_scratch"],
    snp: true,
    handle: pageStateChange
  },
  {
    code: NAE.GUEST_REQUEST,
    name: "guest request",
    needs: [],
    snp: true,
    accepts: acceptsGuestRequest,
    handle: guestRequest
  },
  {
    code: NAE.EXTENDED_GUEST_REQUEST,
    name: "extended guest request",
    needs: ["rax", "rbx"],
    snp: true,
    accepts: acceptsGuestRequest,
    handle: extendedGuestRequest
  },
  { code: NAE.SNP_RUN_VMPL, name: "run VMPL", needs: [], snp: true, feature: HV_FEATURE.MULTI_VMPL, handle: runVmpl },
  { code: NAE.SECURE_AVIC, name: "Secure AVIC", needs: ["rax"], snp: true, handle: secureAvic }
]
