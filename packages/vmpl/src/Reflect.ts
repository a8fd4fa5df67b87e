// @section 3.4
import { EXIT, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { leaveGuest, nextRip, setExitFields } from "./Exit.ts"
import { OP, type Operation } from "./Operation.ts"
import { addressIn, linearRip, type Processor } from "./Processor.ts"

/** Whether what would be #VC leaves the guest instead. */
export const reflectsVc = (cpu: Processor): boolean =>
  (cpu.view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.ReflectVC) !== 0

/**
 * A #VC as an automatic exit: VMEXIT_VC is all that the host sees. In the VMSA a higher level finds the error code and
 * what a standard exit of that kind tells. RIP stays at the operation, as #VC is a fault; after an intercepted
 * instruction NRIP is that of the next one. The operation's operands go where an instruction has them, into RAX and RCX
 * (CPUID) or RAX (a store).
 * @param operation that raised it; null for a fetch
 * @spec APM2 15.36.9
 * @spec-silent EXITINFO1 and 2 of PAGE_NOT_VALIDATED: those of a nested page fault there. GUEST_EXITINTINFO is 0, as no
 * event is in delivery here, and so VINTR_CTRL.BUSY stays clear under alternate injection.
 */
export const reflectVc = (cpu: Processor, errorCode: number, operation: Operation | null): number => {
  const { view } = cpu
  const rip = addressIn(view, VMSA.rip)
  const step = nextRip(view.getUint16(VMSA.rip, true)) - view.getUint16(VMSA.rip, true)
  const emulatedRip = linearRip(cpu) + step
  if (operation !== null) putOperands(view, operation)
  const isAccess = errorCode === EXIT.PAGE_NOT_VALIDATED || errorCode === EXIT.NPF
  if (isAccess) setExitFields(cpu, errorCode, cpu.faultInfoLo, cpu.faultInfoHi, cpu.faultGpa, rip)
  else setExitFields(cpu, errorCode, 0, 0, 0, rip + step)
  view.setUint32(VMSA.guest_exit_int_info, 0, true)
  view.setUint32(VMSA.guest_exit_int_info + 4, 0, true)
  const { execution } = cpu
  leaveGuest(cpu, EXIT.VC, 0, 0, 0)
  if (operation !== null && execution !== null) execution.emulatedRip = emulatedRip
  return EXIT.VC
}

const putOperands = (view: DataView, { op, address, lo, hi }: Operation): void => {
  if (op === OP.CPUID) {
    setRegister(view, VMSA.rax, address, 0)
    setRegister(view, VMSA.rcx, lo, 0)
  } else if (op === OP.WRITE || op === OP.XCHG8) setRegister(view, VMSA.rax, lo, hi)
}

const setRegister = (view: DataView, at: number, lo: number, hi: number): void => {
  view.setUint32(at, lo, true)
  view.setUint32(at + 4, hi, true)
}
