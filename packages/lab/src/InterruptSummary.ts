import type { StrategyRun } from "./ComparisonRun.ts"
import { type Latency, latency } from "./Summary.ts"

/** Virtual ns from source to handler. */
interface Delivery {
  readonly samples: number
  readonly ns: Latency
}

/**
 * One source's interrupts for one level. What was raised was refused, merged, delivered, misdelivered, or is pending or
 * lost at the end.
 */
export interface InterruptEntry {
  readonly source: string
  readonly vmpl: number
  readonly raised: number
  /** No local APIC took it. */
  readonly refused: number
  /** It was requested again before it was taken: the architecture makes one of both. */
  readonly merged: number
  /** Taken by its own level. */
  readonly delivered: number
  /** Taken by another level. */
  readonly misdelivered: number
  readonly pending: number
  readonly lost: number
  /** Requested while another level ran on its vCPU, whatever came of it. */
  readonly delayed: number
  /** Latency of those delivered whose level ran when they were raised, and of those whose level did not. */
  readonly whileRunning: Delivery
  readonly whileNotRunning: Delivery
}

/** Interrupts under one strategy. */
export interface StrategyInterrupts {
  readonly strategy: string
  readonly variant: string | null
  readonly sources: ReadonlyArray<InterruptEntry>
}

/** The interrupts of all strategies; undefined where the scenario has none. */
export const interruptEntries = (runs: ReadonlyArray<StrategyRun>): ReadonlyArray<StrategyInterrupts> | undefined => {
  const entries = runs.flatMap(({ strategy, variant, interrupts }) => {
    if (interrupts === undefined) return []
    const sources = interrupts.map(({ directNs, delayedNs, ...counts }) => ({
      ...counts,
      whileRunning: { samples: directNs.length, ns: latency(directNs) },
      whileNotRunning: { samples: delayedNs.length, ns: latency(delayedNs) }
    }))
    return [{ strategy, variant, sources }]
  })
  return entries.length === 0 ? undefined : entries
}
