import { clientLevel, fourLevels, levelEntry, type PathsOf, serviceLevel } from "@vmpl-lab/guest"
import { RandomStream } from "@vmpl-lab/sim"
import * as Schema from "effect/Schema"
import type { Scenario } from "../Scenario.ts"
import type { Work } from "./Work.ts"

const weight = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1_000 })))

/** Which levels a call of VMPL3 passes through, outermost first: "2>1>0" is VMPL3 to VMPL2 to VMPL1 to VMPL0. */
export const CALL_PATHS = ["0", "1", "2", "1>0", "2>0", "2>1", "2>1>0"] as const
export type CallPath = (typeof CALL_PATHS)[number]

/** Keys of the workload `four-levels`, under `fourLevels`. */
export const FourLevelsKeys = Schema.Struct({
  /** Relative weights of the paths that the calls of VMPL3 take; one left out has none. At least one is positive. */
  paths: Schema.Struct(
    Object.fromEntries(CALL_PATHS.map((path) => [path, Schema.optionalKey(weight)])) as Record<
      CallPath,
      Schema.optionalKey<typeof weight>
    >
  )
})

/** Without keys: all paths alike. */
const EQUAL = Object.fromEntries(CALL_PATHS.map((path) => [path, 1])) as Record<CallPath, number>

/** What is wrong with a scenario's paths, if anything. */
export const pathsTrouble = ({ fourLevels: keys }: Scenario) =>
  keys === undefined || Object.values(keys.paths).some((value) => (value ?? 0) > 0)
    ? undefined
    : { path: ["fourLevels", "paths"], issue: "at least one weight above 0" }

/** The paths of each vCPU's calls, drawn by weight from a stream of its own. */
const pathsOf =
  (scenario: Scenario, seed: number): PathsOf =>
  (apicId) => {
    const weights = scenario.fourLevels?.paths ?? EQUAL
    const chosen = CALL_PATHS.flatMap((path) => new Array<CallPath>(weights[path] ?? 0).fill(path))
    const stream = new RandomStream(seed, `paths:${apicId}`)
    return Array.from({ length: scenario.calls }, () => {
      const path = chosen[stream.int(0, chosen.length - 1)]!
      return path.split(">").map(Number)
    })
  }

/** Level of the boot code, and how many there are below it. */
export const FOUR_LEVELS = { guestVmpl: 1, lowerLevels: 2 } as const

/** VMPL1 boots and serves, VMPL2 serves, VMPL3 calls. */
export const fourLevelsWork = (scenario: Scenario, seed: number): Work => ({
  needs: FOUR_LEVELS,
  guest: () => ({ guestVmpl: 1, lowerLevels: [2, 3], body: fourLevels() }),
  install: (programs, plan, calls) => {
    const paths = calls ? pathsOf(scenario, seed) : () => []
    programs.install(levelEntry(2), () => serviceLevel(plan, 2))
    programs.install(levelEntry(3), () => clientLevel(plan, paths))
  }
})
