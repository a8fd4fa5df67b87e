import type { CapabilityName } from "../kvm/Abi.ts"
import type { Session } from "../Session.ts"
import type { Samples } from "../tasks/Task.ts"

/** How many samples one round of a case takes. */
export interface Count {
  readonly samples: number
  readonly warmUp: number
}

/** Instructions of a guest program: on registers, jumps included; loads and stores; and those that do both. */
export interface Instructions {
  readonly register: number
  readonly access: number
  readonly update: number
}

/** One thing that is measured. */
export interface LiveCase {
  readonly id: string
  /** What one sample is, for tables. */
  readonly what: string
  /** Samples of a full run, over all rounds. */
  readonly samples: number
  /** System calls through the binding in one sample, on its critical path. */
  readonly calls: number
  /** Instructions that the guest itself executes in one sample, the ones that exit aside: software backends emulate. */
  readonly instructions?: Instructions
  /** Readings of the clock in one sample that must be taken off: 0 where a slope has none. */
  readonly clocks: number
  readonly needs?: ReadonlyArray<CapabilityName>
  /** CPUs that it needs. */
  readonly cpus?: number
  readonly run: (session: Session, count: Count) => Promise<Samples>
}
