import { INT_CTL, VMSA } from "@vmpl-lab/sev-es"
import {
  GuestException,
  type Idt,
  OP,
  type Operation,
  OperationResult,
  type Program,
  type Sequence
} from "./Operation.ts"
import type { Processor } from "./Processor.ts"

/** Starts a program: what a fetch at its entry address finds. */
export type Entry = () => Program

/**
 * Code in guest memory, by the linear address of its first instruction. A VMSA whose CS:RIP points at an entry starts
 * that program, so it is the bytes of the VMSA that decide what a new vCPU runs.
 */
export class ProgramMemory {
  readonly #entries = new Map<number, Entry>()

  install(linearAddress: number, entry: Entry): void {
    this.#entries.set(linearAddress, entry)
  }

  at(linearAddress: number): Entry | undefined {
    return this.#entries.get(linearAddress)
  }
}

/** RFLAGS.IF. */
export const RFLAGS_IF = 0x200

/** What a program on the stack is there for. */
export const FRAME = { PROGRAM: 0, VC: 1, INTERRUPT: 2 } as const

/** An interrupted program, or the one that runs. */
interface Frame {
  readonly program: Program
  readonly kind: (typeof FRAME)[keyof typeof FRAME]
  /** RFLAGS that an IRET puts back. */
  readonly rflags: number
  /** INTERRUPT: what the handler must not disturb, put back by its IRET. */
  readonly interrupted: Interrupted | null
  /** The sequence that the program has yielded, and which of its operations is under way. */
  sequence: Sequence | null
  at: number
}

/** Virtual NMIs are enabled and masked. */
const NMI_MASKED = INT_CTL.V_NMI_ENABLE | INT_CTL.V_NMI_MASK

/** Where a program was when it was interrupted between two operations. */
interface Interrupted {
  readonly lo: number
  readonly hi: number
  readonly ecx: number
  readonly edx: number
  readonly carry: boolean
  readonly pending: Operation | null
}

/**
 * The software state behind one VMSA: the interrupted programs, innermost last (a #VC handler lies above the program
 * it serves). It belongs to the RIP it stopped at: a VMSA whose RIP was rewritten does not resume it.
 */
export class Execution {
  /** Linear address of the RIP saved at the last exit. */
  rip: number
  /** GUEST_NRIP as saved at the last exit. */
  nrip = -1
  /** Where RIP stands once software has emulated what the last exit reflected; NaN when that was no reflected #VC. */
  emulatedRip = Number.NaN
  readonly result = new OperationResult()
  /** The operation that has not completed: a fault or a #VC in progress restarts or finishes it. */
  pending: Operation | null = null
  idt: Idt | null = null
  /** The outermost program has returned. */
  ended = false
  /** #VC handlers on the stack. */
  vcDepth = 0
  readonly #stack: Array<Frame>

  constructor(program: Program, rip: number) {
    this.#stack = [{ program, kind: FRAME.PROGRAM, rflags: 0, interrupted: null, sequence: null, at: 0 }]
    this.rip = rip
  }

  /** Delivers #VC: the handler becomes the running program until it returns, and what it returns is the outcome. */
  enterVc(program: Program, cpu: Processor): void {
    this.vcDepth++
    this.#push(program, FRAME.VC, maskInterrupts(cpu), null)
  }

  /** Delivers an interrupt, an NMI or #HV: the handler runs until it returns, then all is as it was. */
  enterInterrupt(program: Program, cpu: Processor): void {
    const { lo, hi, ecx, edx, carry } = this.result
    const interrupted = { lo, hi, ecx, edx, carry, pending: this.pending }
    this.#push(program, FRAME.INTERRUPT, maskInterrupts(cpu), interrupted)
    this.pending = null
    this.ended = false
  }

  /** A far jump: another program runs in place of the innermost one, which never goes on. */
  jump(program: Program): void {
    const frame = this.#stack.pop()!
    this.#push(program, frame.kind, frame.rflags, frame.interrupted)
    this.pending = null
  }

  /**
   * Advances the innermost program to its next operation. Null when the outermost program has returned, and then `ended`
   * is set, or after an IRET that may have unmasked something: it is looked at before the next instruction.
   */
  next(cpu: Processor): Operation | null {
    for (;;) {
      const frame = this.#stack[this.#stack.length - 1]!
      const { sequence } = frame
      if (sequence !== null) {
        if (sequence.outcomes !== null) {
          sequence.outcomes[2 * frame.at] = this.result.lo
          sequence.outcomes[2 * frame.at + 1] = this.result.hi
        }
        if (++frame.at < sequence.operations.length) return sequence.operations[frame.at]!
        frame.sequence = null
      }
      let step: IteratorResult<Operation, unknown>
      try {
        step = frame.program.next(this.result)
      } catch (thrown) {
        // A #VC handler raises an exception in the program that it serves.
        if (frame.kind !== FRAME.VC || !(thrown instanceof GuestException)) throw thrown
        this.#pop(cpu)
        const operation = this.raise(thrown, cpu)
        if (!cpu.attention) return operation
        this.pending = operation
        return null
      }
      if (!step.done) return begin(frame, step.value)
      if (this.#stack.length === 1) {
        this.ended = true
        return null
      }
      this.#pop(cpu)
      if (cpu.attention) return null
      if (this.pending !== null) return this.pending
      // A #VC handler has put the emulated instruction's outcome into `result`: the program goes on with it.
    }
  }

  /**
   * Raises an exception in the innermost program. Rethrows what nobody catches.
   * @returns the operation with which that goes on, null where `next` is to tell
   */
  raise(exception: GuestException, cpu: Processor): Operation | null {
    const frame = this.#stack[this.#stack.length - 1]!
    frame.sequence = null
    let step: IteratorResult<Operation, unknown>
    try {
      step = frame.program.throw(exception)
    } catch (thrown) {
      // One that a handler does not catch is a fault of its own; another one is for the program it serves.
      if (thrown === exception || frame.kind !== FRAME.VC || !(thrown instanceof GuestException)) throw thrown
      this.#pop(cpu)
      return this.raise(thrown, cpu)
    }
    if (!step.done) return begin(frame, step.value)
    if (this.#stack.length === 1) return null
    this.#pop(cpu)
    return this.pending ?? this.next(cpu)
  }

  #push(program: Program, kind: Frame["kind"], rflags: number, interrupted: Interrupted | null): void {
    this.#stack.push({ program, kind, rflags, interrupted, sequence: null, at: 0 })
  }

  /** A handler's IRET. It ends the masking of virtual NMIs whatever it returns from. @spec APM2 15.21.10 */
  #pop(cpu: Processor): void {
    const { kind, rflags, interrupted } = this.#stack.pop()!
    cpu.view.setUint32(VMSA.rflags, rflags, true)
    if ((cpu.intCtl & NMI_MASKED) === NMI_MASKED) {
      cpu.intCtl &= ~INT_CTL.V_NMI_MASK
      cpu.attention = true
    }
    if (kind === FRAME.VC) this.vcDepth--
    if (interrupted === null) return
    const { pending, ...result } = interrupted
    Object.assign(this.result, result)
    this.pending = pending
  }
}

/** What a program has yielded: an operation, or a sequence of them. @returns the one to execute first */
const begin = (frame: Frame, yielded: Operation): Operation => {
  if (yielded.op !== OP.SEQUENCE) return yielded
  const sequence = yielded as Sequence
  frame.sequence = sequence
  frame.at = 0
  return sequence.operations[0]!
}

/** Delivery through an interrupt gate clears RFLAGS.IF. @returns RFLAGS before that */
const maskInterrupts = ({ view }: Processor): number => {
  const rflags = view.getUint32(VMSA.rflags, true)
  view.setUint32(VMSA.rflags, rflags & ~RFLAGS_IF, true)
  return rflags
}
