import { exitName } from "@vmpl-lab/sev-es"
import { CORE_WAIT, type HostThread, PRIMITIVE, PRIMITIVES, type TraceKind } from "@vmpl-lab/sim"
import { CORE_WAIT_ROW } from "../Breakdown.ts"

/** Who is at work in a step: software inside the guest, the processor, KVM with the rest of the host's kernel, the VMM. */
export const LANES = ["guest", "hardware", "KVM", "VMM"] as const
export type Lane = (typeof LANES)[number]

/** What the processor does itself, whichever software it interrupts or starts. */
const HARDWARE: ReadonlySet<number> = new Set([
  PRIMITIVE.vmexit_sev_snp,
  PRIMITIVE.vmrun_sev_snp,
  PRIMITIVE.tlb_flush_asid
])

/** The VMM's own code, with the system calls that it makes; everything else outside the guest is the host's kernel's. */
const OF_VMM: ReadonlySet<number> = new Set([
  PRIMITIVE.vmm_dispatch,
  PRIMITIVE.futex_wake,
  PRIMITIVE.futex_wait,
  PRIMITIVE.eventfd_signal,
  PRIMITIVE.eventfd_wait,
  PRIMITIVE.signal_send
])

/**
 * Which lane each step of a run belongs to. A thread is in the guest from VMRUN to #VMEXIT, so it has to see every event
 * of the threads it is asked about.
 */
export class ThreadLanes {
  readonly #vmpl = new Map<number, number>()

  /** VMPL that runs on the thread; null while the thread is in the host. */
  vmpl(thread: HostThread): number | null {
    return this.#vmpl.get(thread.id) ?? null
  }

  /** Takes note of an event. @returns the lane of the step that it ends or marks */
  see(thread: HostThread, kind: TraceKind, value: number | string): Lane {
    switch (kind) {
      case "VMRUN":
        this.#vmpl.set(thread.id, Number(value))
        return "hardware"
      case "#VMEXIT":
        this.#vmpl.delete(thread.id)
        return "hardware"
      case "arrived":
        return "guest"
      case "KVM_EXIT":
        return "VMM"
      case "charge":
        return this.#laneOfCharge(thread, Number(value))
      default:
        return "KVM"
    }
  }

  #laneOfCharge(thread: HostThread, primitive: number): Lane {
    if (HARDWARE.has(primitive)) return "hardware"
    if (this.#vmpl.has(thread.id)) return "guest"
    return OF_VMM.has(primitive) ? "VMM" : "KVM"
  }
}

/** A step in words: the primitive that was charged, or the event. */
export const labelOf = (kind: TraceKind, value: number | string): string => {
  switch (kind) {
    case "charge":
      return PRIMITIVES[Number(value)] ?? `primitive ${value}`
    case "core-wait":
      return value === CORE_WAIT ? CORE_WAIT_ROW : String(value)
    case "#VMEXIT":
      return `#VMEXIT ${exitName(Number(value))}`
    case "VMRUN":
      return `VMRUN VMPL${value}`
    case "vmsa-swap":
      return `VMSA of VMPL${value}`
    case "vcpu-switch":
      return `vCPU object of VMPL${value}`
    case "hand-off":
      return `wake ${value}`
    case "arrived":
      return `first instruction at VMPL${value}`
    case "KVM_EXIT":
      return `KVM_RUN returns: ${value}`
  }
}
