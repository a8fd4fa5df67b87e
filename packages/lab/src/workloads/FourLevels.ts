import * as Schema from "effect/Schema"

const weight = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1_000 })))

/** Which levels a call of VMPL3 passes through, outermost first: "2>1>0" is VMPL3 to VMPL2 to VMPL1 to VMPL0. */
export const CALL_PATHS = ["0", "1", "2", "1>0", "2>0", "2>1", "2>1>0"] as const
export type CallPath = (typeof CALL_PATHS)[number]

/** Keys of the workload `four-levels`, under `fourLevels`. */
export const FourLevelsKeys = Schema.Struct({
  /** Relative weights of the paths that the calls of VMPL3 take. At least one is positive. */
  paths: Schema.Struct(Object.fromEntries(CALL_PATHS.map((path) => [path, weight])) as Record<CallPath, typeof weight>)
})
