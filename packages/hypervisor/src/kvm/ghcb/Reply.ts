import { injectException, REASON, REPLY, VECTOR } from "@vmpl-lab/sev-es"
import { ERRNO, HANDLED } from "../Errno.ts"
import type { Vcpu } from "../Vcpu.ts"
import type { GhcbExit } from "./GhcbExit.ts"

/**
 * Completes a reply. A guest that has made the page private meanwhile makes a store fault: KVM_RUN fails with EFAULT.
 */
export const finish = (vcpu: Vcpu, exit: GhcbExit): number => {
  if (!exit.failed) return HANDLED.RESUME_GUEST
  vcpu.run.detail = `GHCB frame 0x${exit.address.toString(16)} is no longer hypervisor-owned`
  return ERRNO.EFAULT
}

/** The request was served; registers that it returns were put before. */
export const done = (vcpu: Vcpu, exit: GhcbExit, info2Lo = 0, info2Hi = 0): number => {
  exit.put("sw_exit_info_1", REPLY.NO_ACTION)
  exit.put("sw_exit_info_2", info2Lo, info2Hi)
  return finish(vcpu, exit)
}

/** The guest is to raise an exception. @spec GHCB "error reporting" */
export const raise = (vcpu: Vcpu, exit: GhcbExit, vector: number, errorCode: number | null): number => {
  exit.put("sw_exit_info_1", REPLY.INJECT_EXCEPTION)
  exit.put("sw_exit_info_2", injectException(vector, errorCode !== null), errorCode ?? 0)
  return finish(vcpu, exit)
}

export const raiseGp = (vcpu: Vcpu, exit: GhcbExit): number => raise(vcpu, exit, VECTOR.GP, 0)

/** The request was malformed: one of REASON, or 0 where KVM gives none. */
export const refuse = (vcpu: Vcpu, exit: GhcbExit, reason: number): number => {
  exit.put("sw_exit_info_1", REPLY.MALFORMED_INPUT)
  exit.put("sw_exit_info_2", reason)
  return finish(vcpu, exit)
}

/** Shorthand for inputs that are there but cannot be served. */
export const invalidInput = (vcpu: Vcpu, exit: GhcbExit): number => refuse(vcpu, exit, REASON.INVALID_INPUT)
