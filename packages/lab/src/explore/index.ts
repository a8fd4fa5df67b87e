/** Exhaustive exploration of a small RMP: properties, and the attacks that a missing check would allow. */
export { attackTrace } from "./Attack.ts"
export { type Exploration, Explorer, type ExplorerOptions } from "./Explorer.ts"
export { CHECKS, PROPERTIES, type Violation } from "./Properties.ts"
export { ACTIONS, SMALL_MACHINE } from "./SmallMachine.ts"
