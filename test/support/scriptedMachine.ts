import { MSR_GHCB } from "@vmpl-lab/sev-es"
import { OP, type Operation, OperationResult, type Program, Sequence } from "@vmpl-lab/vmpl"

/** A store, as the program made it. */
export interface Store {
  readonly address: number
  readonly size: number
  readonly lo: number
  readonly hi: number
  readonly cbit: boolean
}

/** A load, as the program made it. */
export type Load = Omit<Store, "lo" | "hi">

/** Ends all programs of a machine, the interrupted ones too. */
class Halted {}

/**
 * Executes a guest program against plain memory without any checks. What answers VMGEXIT is the test's: it sees memory,
 * registers and the GHCB MSR and may change them.
 */
export class ScriptedMachine {
  readonly #bytes = { private: new Map<number, number>(), shared: new Map<number, number>() }
  readonly registers = new Map<number, readonly [lo: number, hi: number]>()
  readonly stores: Array<Store> = []
  readonly loads: Array<Load> = []
  /** MSRs other than that of the GHCB: what was written, and what reading gives. */
  readonly msrWrites: Array<readonly [msr: number, lo: number, hi: number]> = []
  readonly msrs = new Map<number, readonly [lo: number, hi: number]>()
  msr: readonly [lo: number, hi: number] = [0, 0]
  /** GHCB MSR at each VMGEXIT. */
  readonly exits: Array<readonly [lo: number, hi: number]> = []
  onVmgexit: (machine: ScriptedMachine) => void = () => {}
  /** What interrupts the program before an operation, if anything; null stands for the end of a program. */
  interrupts: (next: Operation | null) => Program | undefined = () => undefined

  get(gpa: number, size: number, kind: "private" | "shared" = "private"): readonly [lo: number, hi: number] {
    const half = (from: number, bytes: number): number => {
      let value = 0
      for (let i = bytes - 1; i >= 0; i--) value = value * 256 + (this.#bytes[kind].get(from + i) ?? 0)
      return value
    }
    return [half(gpa, Math.min(size, 4)), size > 4 ? half(gpa + 4, 4) : 0]
  }

  set(gpa: number, size: number, lo: number, hi = 0, kind: "private" | "shared" = "private"): void {
    for (let i = 0; i < size; i++) {
      const word = i < 4 ? lo : hi
      this.#bytes[kind].set(gpa + i, Math.floor(word / 256 ** (i % 4)) % 256)
    }
  }

  /** Runs a program to its end. @returns what it returned, or "halted" when it gave up with HLT */
  run<R>(program: Program<R>): R | "halted" {
    try {
      return this.#run(program)
    } catch (thrown) {
      if (thrown instanceof Halted) return "halted"
      throw thrown
    }
  }

  /** Stops the machine from within `onVmgexit`. */
  halt(): never {
    throw new Halted()
  }

  #run<R>(program: Program<R>): R {
    const result = new OperationResult()
    let step = program.next(result)
    while (step.done !== true) {
      const yielded: Operation = step.value
      for (const [i, operation] of (yielded instanceof Sequence ? yielded.operations : [yielded]).entries()) {
        this.#one(operation, result)
        if (yielded instanceof Sequence) yielded.outcomes?.set([result.lo, result.hi], 2 * i)
      }
      step = program.next(result)
    }
    return step.value
  }

  #one(operation: Operation, result: OperationResult): void {
    if (operation.op === OP.HLT) throw new Halted()
    const interrupt = this.interrupts(operation)
    if (interrupt !== undefined) this.#run(interrupt)
    this.#execute(operation, result)
    const late = this.interrupts(null)
    if (late !== undefined) this.#run(late)
  }

  #execute({ op, address, size, lo, hi, cbit, bytes }: Operation, result: OperationResult): void {
    const kind = cbit ? "private" : "shared"
    switch (op) {
      case OP.READ:
        this.loads.push({ address, size, cbit })
        ;[result.lo, result.hi] = this.get(address, size, kind)
        return
      case OP.WRITE:
        this.stores.push({ address, size, lo, hi, cbit })
        this.set(address, size, lo, hi, kind)
        return
      case OP.XCHG8:
        ;[result.lo] = this.get(address, 1, kind)
        this.set(address, 1, lo, 0, kind)
        return
      case OP.WRITE_BYTES:
        bytes!.forEach((byte, i) => {
          this.set(address + i, 1, byte, 0, kind)
        })
        return
      case OP.READ_BYTES:
        bytes!.forEach((_, i) => {
          bytes![i] = this.get(address + i, 1, kind)[0]
        })
        return
      case OP.PAUSE:
        return
      case OP.READ_REGISTER:
        ;[result.lo, result.hi] = this.registers.get(address) ?? [0, 0]
        return
      case OP.WRITE_REGISTER:
        this.registers.set(address, [lo, hi])
        return
      case OP.RDMSR:
        ;[result.lo, result.hi] = address === MSR_GHCB ? this.msr : (this.msrs.get(address) ?? [0, 0])
        return
      case OP.WRMSR:
        if (address === MSR_GHCB) this.msr = [lo, hi]
        else this.msrWrites.push([address, lo, hi])
        return
      case OP.VMGEXIT:
        this.exits.push(this.msr)
        this.onVmgexit(this)
        return
      default:
        throw new Error(`operation ${op} is not expected here`)
    }
  }
}
