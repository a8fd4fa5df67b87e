import { createHash } from "node:crypto"
import { basename } from "node:path"
import type { Strategy } from "@vmpl-lab/hv-strategies"
import { type FirmwareImage, parseFirmware, syntheticFirmware } from "@vmpl-lab/hypervisor"
import type { Profile } from "@vmpl-lab/sim"
import * as Effect from "effect/Effect"
import type { ComparisonRun, StrategyRun } from "./ComparisonRun.ts"
import { RunFailed } from "./RunFailed.ts"
import { runStrategy } from "./RunStrategy.ts"
import type { Scenario } from "./Scenario.ts"
import type { SvsmLaunch } from "./SvsmLaunch.ts"

export { RunFailed } from "./RunFailed.ts"

/** What a comparison needs. Equal inputs give an equal ComparisonRun, but for `wallMs`. */
export interface ComparisonInput {
  /** The file that the guest is launched from, and what is launched from it. */
  readonly image: Pick<FirmwareImage, "name" | "bytes">
  readonly svsm: SvsmLaunch
  readonly scenario: Scenario
  readonly profile: Profile
  readonly seed: number
  readonly strategies: ReadonlyArray<Strategy>
  /** Called now and then with the work done so far, in units of one boot or one call of one vCPU. */
  readonly onProgress: (done: number, total: number) => void
}

/** The small image that the project makes itself, for comparisons without a firmware file. */
export const builtInFirmware = (): FirmwareImage => parseFirmware(syntheticFirmware(), "built-in firmware")

/** Runs the scenario under each strategy and records what the host did. */
export const runComparison = Effect.fnUntraced(function* (input: ComparisonInput) {
  const { image, svsm, scenario, profile, seed, strategies, onProgress } = input
  const work = scenario.boots + scenario.calls * scenario.vcpus
  const runs: Array<StrategyRun> = []
  let launchDigest = ""
  for (const strategy of strategies) {
    const run = runStrategy({ strategy, scenario, profile, seed, svsm })
    let step = run.next()
    while (step.done !== true) {
      onProgress(runs.length * work + step.value, strategies.length * work)
      yield* Effect.yieldNow
      step = run.next()
    }
    if (typeof step.value === "string") return yield* new RunFailed({ why: step.value })
    launchDigest = step.value.launchDigest
    runs.push(step.value.run)
  }
  const comparison: ComparisonRun = {
    launchDigest,
    firmware: {
      // By its base name, so that the result does not depend on where the image lies.
      name: basename(image.name),
      bytes: image.bytes.length,
      sha256: createHash("sha256").update(image.bytes).digest("hex")
    },
    runs
  }
  return comparison
})
