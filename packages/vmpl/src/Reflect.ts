// @section 3.4
import { EXIT, hi32, lo32, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { followingRip, leaveGuest, setExitFields } from "./Exit.ts"
import { OP, type Operation } from "./Operation.ts"
import { addressIn, linearRip, type Processor } from "./Processor.ts"

/** Whether what would be #VC leaves the guest instead. */
export const reflectsVc = (cpu: Processor): boolean =>
  (cpu.view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.ReflectVC) !== 0

/**
 * A #VC as an automatic exit: VMEXIT_VC is all that the host sees. In the VMSA a higher level finds the error code and
 * what a standard exit of that kind tells. RIP stays at the operation, as #VC is a fault; after an intercepted
 * instruction NRIP is that of the next one. The operation's operands go where an instruction has them.
 * @param operation that raised it; null for a fetch
 * @spec APM2 15.36.9
 * @spec-silent EXITINFO1 and 2 of PAGE_NOT_VALIDATED: those of a nested page fault there. GUEST_EXITINTINFO is 0, as no
 * event is in delivery here, and so VINTR_CTRL.BUSY stays clear under alternate injection.
 */
export const reflectVc = (cpu: Processor, errorCode: number, operation: Operation | null): number => {
  const { view } = cpu
  const rip = addressIn(view, VMSA.rip)
  const nrip = followingRip(cpu)
  const emulatedRip = linearRip(cpu) + nrip - rip
  if (operation !== null) putOperands(view, operation)
  const isAccess = errorCode === EXIT.PAGE_NOT_VALIDATED || errorCode === EXIT.NPF
  if (isAccess) setExitFields(cpu, errorCode, cpu.faultInfoLo, cpu.faultInfoHi, cpu.faultGpa, rip)
  else setExitFields(cpu, errorCode, cpu.exitInfoLo, cpu.exitInfoHi, cpu.exitInfo2, nrip)
  view.setUint32(VMSA.guest_exit_int_info, 0, true)
  view.setUint32(VMSA.guest_exit_int_info + 4, 0, true)
  const { execution } = cpu
  leaveGuest(cpu, EXIT.VC, 0, 0, 0)
  if (operation !== null && execution !== null) execution.emulatedRip = emulatedRip
  return EXIT.VC
}

const putOperands = (view: DataView, { op, address, lo, hi, size }: Operation): void => {
  switch (op) {
    case OP.CPUID:
      setRegister(view, VMSA.rax, address, 0)
      setRegister(view, VMSA.rcx, lo, 0)
      return
    case OP.RDMSR:
    case OP.RDPMC:
      setRegister(view, VMSA.rcx, address, 0)
      return
    case OP.WRMSR:
      setRegister(view, VMSA.rcx, address, 0)
      setRegister(view, VMSA.rax, lo, 0)
      setRegister(view, VMSA.rdx, hi, 0)
      return
    case OP.INS:
    case OP.OUTS:
      setRegister(view, op === OP.INS ? VMSA.rdi : VMSA.rsi, lo32(address), hi32(address))
      setRegister(view, VMSA.rcx, hi, 0)
      return
    case OP.XSETBV:
      setRegister(view, VMSA.rcx, 0, 0)
      setRegister(view, VMSA.rax, lo, 0)
      setRegister(view, VMSA.rdx, 0, 0)
      return
    case OP.MONITOR:
      setRegister(view, VMSA.rcx, 0, 0)
      setRegister(view, VMSA.rdx, 0, 0)
      setRegister(view, VMSA.rax, lo32(address), hi32(address))
      return
    case OP.VMRUN:
    case OP.VMLOAD:
    case OP.VMSAVE:
      setRegister(view, VMSA.rax, lo32(address), hi32(address))
      return
    case OP.MWAIT:
      setRegister(view, VMSA.rax, lo, 0)
      setRegister(view, VMSA.rcx, hi, 0)
      return
    case OP.OUT:
    case OP.WRITE:
    case OP.XCHG8:
    case OP.WRITE_DR:
    case OP.WRITE_CR:
      setRegister(view, VMSA.rax, lo, size === 8 ? hi : 0)
      return
  }
}

const setRegister = (view: DataView, at: number, lo: number, hi: number): void => {
  view.setUint32(at, lo, true)
  view.setUint32(at + 4, hi, true)
}
