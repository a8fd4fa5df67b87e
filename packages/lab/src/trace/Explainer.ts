import type { SwitchId } from "@vmpl-lab/rmp"
import type { Action } from "./Action.ts"
import type { TraceMachine } from "./TraceMachine.ts"

/** The rule that decides an action: AMD's name, where it is written, and the switches that the outcome hangs on. */
export interface Explanation {
  readonly rule: string
  readonly source: string
  readonly switches?: ReadonlyArray<SwitchId>
}

/**
 * Says which rule will decide an action, from the machine as it is before. Null where nothing is decided, as in
 * `entry` and `digest`. Must not change the machine.
 */
export type Explainer = (action: Action, machine: TraceMachine) => Explanation | null
