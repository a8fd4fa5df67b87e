import { strategyName } from "@vmpl-lab/hv-strategies"
import {
  AP_CREATE_SIZES,
  AP_CREATE_VCPUS,
  AP_CREATIONS,
  CHOREOGRAPHIES,
  LiveFailed,
  type MeasureOptions,
  type NotMeasured,
  OVERHEAD_CASES,
  overheadOf,
  runApCreation,
  runCases,
  type Session,
  type Summary,
  withoutOverhead
} from "@vmpl-lab/kvm-live"
import type { Profile } from "@vmpl-lab/sim"
import { onlyMeasured, predictApCreations, predictedBy, predictRoundTrip } from "./Prediction.ts"

/** One live case beside the model's prediction of it. Times in ns; live ones without the share of the binding and of the guests' own instructions. */
export interface LiveRow {
  readonly strategy: string
  readonly variant: string | null
  readonly placement: string
  readonly live: number
  readonly p10: number
  readonly p90: number
  readonly p99: number
  readonly samples: number
  readonly noisy: string | null
  readonly predicted: number
  /** Strategy of the model that takes the same steps. */
  readonly predictedBy: string
  /** Predicted less live, in per cent of live. */
  readonly errorPercent: number
}

/** Creating a level's objects for guests of several sizes: the user-space part. Mean per AP, ns. */
export interface ApCreateRow {
  readonly strategy: string
  readonly variant: string
  readonly vcpus: number
  readonly live: number
  readonly predicted: number
  readonly errorPercent: number
}

export interface LiveComparison {
  readonly roundTrips: ReadonlyArray<LiveRow>
  readonly apCreate: ReadonlyArray<ApCreateRow>
  readonly notMeasured: ReadonlyArray<NotMeasured>
}

const error = (predicted: number, live: number): number => (live === 0 ? 0 : (100 * (predicted - live)) / live)

const medianOf = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

/** Guests of a full run whose creations are measured. */
const GUESTS = 12

/**
 * The strategies' choreography on this machine beside what the model makes of the profile's measured prices alone.
 * @throws LiveFailed where KVM fails, RunFailed where the simulation does
 */
export const compareLive = async (
  session: Session,
  profile: Profile,
  options: MeasureOptions
): Promise<LiveComparison> => {
  const measured = onlyMeasured(profile)
  const cases = [...OVERHEAD_CASES, ...CHOREOGRAPHIES]
  const { taken, notMeasured } = await runCases(session, cases, options)
  const overhead = overheadOf(taken)
  const rows = withoutOverhead(CHOREOGRAPHIES, taken, overhead).map(({ id, summary, net, overhead }): LiveRow => {
    const one = CHOREOGRAPHIES.find((candidate) => candidate.id === id)!
    const predicted = predictRoundTrip(one, measured)
    return {
      strategy: one.strategy,
      variant: one.variant,
      placement: one.placement,
      live: net,
      ...spread(summary, overhead),
      samples: summary.samples,
      noisy: summary.noisy,
      predicted,
      predictedBy: strategyName(predictedBy(one)),
      errorPercent: error(predicted, net)
    }
  })
  const apCreate: Array<ApCreateRow> = []
  const guests = Math.max(2, Math.ceil(options.share * GUESTS))
  const notCreated: Array<NotMeasured> = []
  for (const creation of AP_CREATIONS) {
    const samples = await runApCreation(session, creation, guests).catch((error: unknown) => {
      if (!(error instanceof LiveFailed)) throw error
      const { strategy, variant } = creation
      notCreated.push({ id: "ap-create", what: `AP create, ${strategy}/${variant}`, why: error.why })
      return null
    })
    if (samples === null) continue
    const predicted = predictApCreations(creation, measured, AP_CREATE_VCPUS)
    for (const vcpus of AP_CREATE_SIZES) {
      const perAp = (values: ArrayLike<number>, from: number): number => {
        let sum = 0
        for (let i = 0; i < vcpus; i++) sum += values[from + i]!
        return sum / vcpus
      }
      const begins = Array.from({ length: guests }, (_, guest) => guest * AP_CREATE_VCPUS)
      const calls = creation.calls + creation.callsOfFirst / vcpus
      const raw = medianOf(begins.map((begin) => perAp(samples, begin)))
      const live = Math.max(0, raw - calls * overhead.binding - 2 * overhead.clock)
      const expected = perAp(predicted, 0)
      apCreate.push({
        strategy: creation.strategy,
        variant: creation.variant,
        vcpus,
        live,
        predicted: expected,
        errorPercent: error(expected, live)
      })
    }
  }
  return { roundTrips: rows, apCreate, notMeasured: [...notMeasured, ...notCreated] }
}

const spread = ({ p10, p90, p99 }: Summary, overhead: number) => ({
  p10: p10 - overhead,
  p90: p90 - overhead,
  p99: p99 - overhead
})

/** Median absolute error of each strategy, in per cent, over its live cases. */
export const errorsByStrategy = ({ roundTrips }: Pick<LiveComparison, "roundTrips">) =>
  [...new Set(roundTrips.map(({ strategy }) => strategy))].map((strategy) => {
    const own = roundTrips.filter((row) => row.strategy === strategy && row.placement !== "upper bound")
    const errors = own.map(({ errorPercent }) => Math.abs(errorPercent)).sort((a, b) => a - b)
    const middle = Math.floor(errors.length / 2)
    const median = errors.length % 2 === 1 ? errors[middle]! : (errors[middle - 1]! + errors[middle]!) / 2
    return { strategy, cases: own.length, medianErrorPercent: median }
  })
