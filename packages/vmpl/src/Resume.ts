import { VMSA } from "@vmpl-lab/sev-es"
import type { Execution } from "./Execution.ts"
import { OP } from "./Operation.ts"
import { addressIn, type Processor } from "./Processor.ts"

/**
 * Whether the VMSA just loaded goes on with what stopped at it. What the CPU left at #VMEXIT tells: in a VMSA that
 * software built afresh the exit code is 0, of which there is none here, and NRIP is another, unless both are 0.
 *
 * After a reflected #VC software may have emulated the operation and moved RIP past it: then the operation is done, and
 * its outcome is what is in the registers.
 * @param rip linear
 */
export const resumes = (cpu: Processor, execution: Execution, rip: number): boolean => {
  const { view } = cpu
  const stopped =
    view.getUint32(VMSA.guest_exit_code, true) !== 0 && addressIn(view, VMSA.guest_nrip) === execution.nrip
  if (!stopped) return false
  if (rip === execution.emulatedRip) takeEmulated(cpu, execution)
  return rip === execution.rip || rip === execution.emulatedRip
}

/** Instructions that answer in EDX:EAX; CPUID answers in EBX and ECX too, a load in RAX. */
const ANSWERS_IN_EDX_EAX: ReadonlySet<number> = new Set([OP.RDMSR, OP.RDTSC, OP.RDTSCP, OP.RDPMC])

const ANSWERS_IN_PART_OF_RAX: ReadonlySet<number> = new Set([OP.IN, OP.READ, OP.XCHG8])

const takeEmulated = ({ view }: Processor, execution: Execution): void => {
  const { pending, result } = execution
  const op = pending?.op ?? -1
  const second = op === OP.CPUID ? VMSA.rbx : ANSWERS_IN_EDX_EAX.has(op) ? VMSA.rdx : VMSA.rax + 4
  // A load or IN of less than 8 bytes is answered in AL, AX or EAX.
  const size = ANSWERS_IN_PART_OF_RAX.has(op) ? pending!.size : 8
  const rax = view.getUint32(VMSA.rax, true)
  result.lo = size < 4 ? rax & ((1 << (8 * size)) - 1) : rax
  result.hi = size < 8 ? 0 : view.getUint32(second, true)
  result.ecx = view.getUint32(VMSA.rcx, true)
  result.edx = view.getUint32(VMSA.rdx, true)
  execution.pending = null
}
