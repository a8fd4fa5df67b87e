import { type Operation, OperationResult, type Program, type VcHandler } from "./Operation.ts"

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
  vcHandler: VcHandler | null = null
  readonly #stack: Array<Program>

  constructor(program: Program, rip: number) {
    this.#stack = [program]
    this.rip = rip
  }

  /** True when a #VC handler is active. */
  get handling(): boolean {
    return this.#stack.length > 1
  }

  /** Delivers #VC: the handler becomes the running program until it returns. */
  interrupt(handler: Program): void {
    this.#stack.push(handler)
  }

  /** Advances the innermost program to its next operation; null when the outermost program has returned. */
  next(): Operation | null {
    for (;;) {
      const program = this.#stack[this.#stack.length - 1]!
      const step = program.next(this.result)
      if (!step.done) return step.value
      if (this.#stack.length === 1) return null
      this.#stack.pop()
      // The handler has put the emulated instruction's outcome into `result`: the interrupted program goes on with it.
    }
  }

  /** Raises an exception in the innermost program. Rethrows what nobody catches. */
  raise(exception: unknown): Operation | null {
    const step = this.#stack[this.#stack.length - 1]!.throw(exception)
    return step.done ? null : step.value
  }
}
