import { EXIT } from "@vmpl-lab/sev-es"
import type { HostThread, Span } from "@vmpl-lab/sim"
import { type VmrunOutcome, vmrun } from "./Enter.ts"
import { hostRegistersOf, hostVmsave } from "./HostState.ts"
import { type Hardware, Processor } from "./Processor.ts"
import { runGuest } from "./Run.ts"

/**
 * What host software can do with a core's guest mode: enter, let run, interrupt. Registers and memory of the guest stay
 * behind it.
 */
export class GuestMode {
  readonly #cpu: Processor

  constructor(hardware: Hardware, thread: HostThread) {
    this.#cpu = new Processor(hardware, thread)
  }

  /** The host thread that is on the core. */
  set thread(thread: HostThread) {
    this.#cpu.thread = thread
  }

  /** Observer: the next #VMEXIT starts this span, unless one is under way. */
  set exitSpan(span: Span | null) {
    this.#cpu.exitSpan = span
  }

  /** Observer: called once, when the first fetch after VMRUN has succeeded. */
  set arrived(arrived: (() => void) | null) {
    this.#cpu.arrived = arrived
  }

  /** Observer: called when the handler of an interrupt or of #HV is about to execute its first instruction. */
  set delivered(delivered: ((vector: number) => void) | null) {
    this.#cpu.delivered = delivered
  }

  /** Registers of the core in host mode, at VMSA offsets. */
  get hostRegisters(): Uint8Array {
    return hostRegistersOf(this.#cpu)
  }

  /** VMSAVE to a system physical address. @returns false: it is #GP(0) in the host */
  vmsave(address: number): boolean {
    return hostVmsave(this.#cpu, address)
  }

  /** VMRUN of the VMCB at a system physical address. */
  vmrun(vmcb: number): VmrunOutcome {
    return vmrun(this.#cpu, vmcb)
  }

  /** Runs the guest until #VMEXIT or past `horizon` (virtual ns). @returns the exit code, or STILL_IN_GUEST */
  run(horizon: number): number {
    return runGuest(this.#cpu, horizon)
  }

  /**
   * A physical interrupt for the core arrives at `time` (virtual ns); one that is already on its way arrives no later.
   * `span` is the path of the operation that sent it, if it is measured. `code` may make an NMI, SMI or INIT of it.
   */
  interrupt(time: number, span: Span | null, code: number = EXIT.INTR): void {
    if (time < this.#cpu.interruptAt) {
      this.#cpu.interruptAt = time
      this.#cpu.interruptCode = code
    }
    if (span !== null) this.#cpu.interruptSpan = span
  }
}
