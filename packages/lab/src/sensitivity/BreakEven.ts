import type { PrimitiveName, Profile } from "@vmpl-lab/sim"
import { nearestRank } from "../statistics/Quantile.ts"
import type { Evaluate } from "./Evaluate.ts"
import { pricesAt } from "./Knobs.ts"
import { priceFloor, withPrices } from "./Prices.ts"

/** Which strategy is to catch up with which, and what may become cheaper or dearer for it. */
export interface BreakEvenInput {
  readonly profile: Profile
  readonly a: string
  readonly b: string
  /** Moved together, each keeping its share. */
  readonly primitives: ReadonlyArray<PrimitiveName>
  /** Highest price tried, for all primitives together, in virtual ns. */
  readonly bound: number
  /** Random runs of each price. */
  readonly draws: number
  readonly evaluate: Evaluate
}

/** A price that was tried, for all primitives together, and how much longer `a` takes than `b` there: the median over the draws. Virtual ns. */
export interface Trial {
  readonly ns: number
  readonly gapNs: number
}

/**
 * - `at`: `a` is as fast as `b` on one side of a price, and slower on the other;
 * - `several`: the gap changes its sign more than once;
 * - `never`, `always`: `a` is slower, or at least as fast, at every price tried.
 */
export type Answer = "at" | "several" | "never" | "always"

export interface BreakEven {
  readonly a: string
  readonly b: string
  readonly primitives: ReadonlyArray<PrimitiveName>
  readonly answer: Answer
  /** Price of all primitives together today. */
  readonly nowNs: number
  readonly gapNowNs: number
  /** Lowest price tried: 0, or as near as the simulation allows. */
  readonly floorNs: number
  readonly boundNs: number
  /** The last price on the near side, in ascending order of crossings, at which `a` is not slower. Empty unless crossed. */
  readonly crossings: ReadonlyArray<{
    readonly ns: number
    readonly gapNs: number
    readonly notSlower: "below" | "above"
  }>
  /** Where the gap is smallest among the prices tried. */
  readonly best: Trial
  /** How far the gap of today differs from draw to draw, largest less smallest. */
  readonly noiseNs: number
  /** Whether the gap only grows, or only shrinks, over the prices tried, but for steps back within the noise. */
  readonly monotone: boolean
  /** In ascending order of prices. */
  readonly trials: ReadonlyArray<Trial>
}

/** Parts of the range that are looked at before anything is searched for: enough to see that the gap is not monotone. */
const PARTS = 4

/**
 * Searches the price of some primitives at which `a`'s median is `b`'s, by running both. Yields between runs.
 * Between neighbouring prices tried whose gaps have different signs it interpolates and bisects down to 1 ns.
 */
export function* breakEven(input: BreakEvenInput): Generator<void, BreakEven, void> {
  const { profile, a, b, primitives, draws, evaluate } = input
  const floor = primitives.reduce((sum, name) => sum + priceFloor(name), 0)
  const now = primitives.reduce((sum, name) => sum + profile.primitives[name].ns, 0)
  const bound = Math.max(input.bound, now, floor + 1)
  const known = new Map<number, number>()
  // Today's gap comes first and tells whether there is any chance in it: without, one draw is as good as all.
  let noise: number | undefined
  const gapAt = function* (ns: number): Generator<void, number, void> {
    const before = known.get(ns)
    if (before !== undefined) return before
    const priced = ns === now ? profile : withPrices(profile, pricesAt(profile, primitives, ns))
    const gaps: Array<number> = []
    for (let draw = 0; draw < (noise === 0 ? 1 : draws); draw++) {
      gaps.push((yield* evaluate(a, priced, draw)).ns - (yield* evaluate(b, priced, draw)).ns)
    }
    const sorted = gaps.sort((x, y) => x - y)
    const gap = nearestRank(sorted, 50)
    known.set(ns, gap)
    noise ??= sorted.at(-1)! - sorted[0]!
    return gap
  }

  yield* gapAt(now)
  const grid = Array.from({ length: PARTS + 1 }, (_, i) => floor + Math.floor(((bound - floor) * i) / PARTS))
  const looked = [...new Set([...grid, now])].sort((x, y) => x - y)
  for (const ns of looked) yield* gapAt(ns)
  const crossings: Array<BreakEven["crossings"][number]> = []
  for (let i = 0; i + 1 < looked.length; i++) {
    const below = known.get(looked[i]!)! <= 0
    const above = known.get(looked[i + 1]!)! <= 0
    if (below === above) continue
    const ns = yield* search(gapAt, looked[i]!, looked[i + 1]!, below)
    crossings.push({ ns, gapNs: known.get(ns)!, notSlower: below ? "below" : "above" })
  }

  const trials = [...known].map(([ns, gapNs]) => ({ ns, gapNs })).sort((x, y) => x.ns - y.ns)
  const noiseNs = noise ?? 0
  const steps = trials.slice(1).map(({ gapNs }, i) => gapNs - trials[i]!.gapNs)
  return {
    a,
    b,
    primitives,
    answer:
      crossings.length > 1 ? "several" : crossings.length === 1 ? "at" : trials[0]!.gapNs <= 0 ? "always" : "never",
    nowNs: now,
    gapNowNs: known.get(now)!,
    floorNs: floor,
    boundNs: bound,
    crossings,
    best: trials.reduce((best, trial) => (trial.gapNs < best.gapNs ? trial : best)),
    noiseNs,
    monotone: steps.every((step) => step >= -noiseNs) || steps.every((step) => step <= noiseNs),
    trials
  }
}

/**
 * The price next to the crossing at which `a` is not slower: the last one above `from`, or the first one below `to`.
 * @param below `a` is not slower at `from`, and is at `to`; else the other way round
 */
function* search(
  gapAt: (ns: number) => Generator<void, number, void>,
  from: number,
  to: number,
  below: boolean
): Generator<void, number, void> {
  let left = from
  let right = to
  // Interpolation hits the crossing of a straight gap at once; every other step halves, in case it is not straight.
  for (let turn = 0; right - left > 1; turn++) {
    const leftGap = yield* gapAt(left)
    const rightGap = yield* gapAt(right)
    const straight = left + Math.floor(((right - left) * -leftGap) / (rightGap - leftGap))
    const middle = turn % 3 === 2 ? Math.floor((left + right) / 2) : straight + (turn % 3)
    const next = Math.min(Math.max(middle, left + 1), right - 1)
    const notSlower = (yield* gapAt(next)) <= 0
    if (notSlower === below) left = next
    else right = next
  }
  return below ? left : right
}
