import { grid } from "./Grid.ts"
import type { StrategyInterrupts } from "./InterruptSummary.ts"
import { duration } from "./Units.ts"

const nameOf = ({ strategy, variant }: StrategyInterrupts): string =>
  variant === null ? strategy : `${strategy}\n(${variant})`

/** What became of the interrupts: counts. */
export const interruptCountTable = (interrupts: ReadonlyArray<StrategyInterrupts>): string =>
  grid(
    ["strategy", "source", "VMPL", "raised", "own\nlevel", "wrong\nlevel", "merged", "refused", "pending", "lost"],
    [2, 3, 4, 5, 6, 7, 8, 9],
    interrupts.flatMap((one) =>
      one.sources.map((entry) => [
        nameOf(one),
        entry.source,
        String(entry.vmpl),
        String(entry.raised),
        String(entry.delivered),
        String(entry.misdelivered),
        String(entry.merged),
        String(entry.refused),
        String(entry.pending),
        String(entry.lost)
      ])
    )
  )

/** From source to handler, by whether the level ran. */
export const interruptLatencyTable = (interrupts: ReadonlyArray<StrategyInterrupts>): string =>
  grid(
    ["strategy", "source", "VMPL", "ran\nnumber", "\np50", "\np99", "did not\nnumber", "\np50", "\np99"],
    [2, 3, 4, 5, 6, 7, 8],
    interrupts.flatMap((one) =>
      one.sources.map(({ source, vmpl, whileRunning, whileNotRunning }) => [
        nameOf(one),
        source,
        String(vmpl),
        String(whileRunning.samples),
        duration(whileRunning.ns.p50),
        duration(whileRunning.ns.p99),
        String(whileNotRunning.samples),
        duration(whileNotRunning.ns.p50),
        duration(whileNotRunning.ns.p99)
      ])
    )
  )

/** A line for each strategy under which a level took what was another's. */
export const misdeliveryLines = (interrupts: ReadonlyArray<StrategyInterrupts>): ReadonlyArray<string> =>
  interrupts.flatMap(({ strategy, variant, sources }) => {
    const wrong = sources.reduce((sum, { misdelivered }) => sum + misdelivered, 0)
    const all = sources.reduce((sum, { raised }) => sum + raised, 0)
    const name = variant === null ? strategy : `${strategy} (${variant})`
    return wrong === 0 ? [] : [`  ${name}: ${wrong} of ${all} interrupts were taken by the wrong level.`]
  })
