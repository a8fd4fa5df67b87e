import { KVM_CAP } from "../kvm/Abi.ts"
import { LiveFailed } from "../LiveFailed.ts"
import type { Session } from "../Session.ts"
import type { Samples } from "../tasks/Task.ts"
import type { Instructions, LiveCase } from "./Case.ts"
import { SINGLE_THREAD } from "./SingleThread.ts"
import { type Summary, summarize } from "./Statistics.ts"
import { TWO_THREADS } from "./TwoThreads.ts"

/** Everything `live measure` measures, in the order of tables. */
export const LIVE_CASES: ReadonlyArray<LiveCase> = [...SINGLE_THREAD, ...TWO_THREADS]

/** One case's outcome. */
export interface Measured {
  readonly id: string
  readonly what: string
  /** As taken, the binding and the clock included. */
  readonly raw: ReadonlyArray<Samples>
  readonly summary: Summary
  /** Median without what the clock and the binding add, in ns. */
  readonly net: number
  /** What was taken off for them and for the guest's own instructions, in ns. */
  readonly overhead: number
}

/** What could not be measured, and why. */
export interface NotMeasured {
  readonly id: string
  readonly what: string
  readonly why: string
}

export interface MeasureResult {
  readonly measured: ReadonlyArray<Measured>
  readonly notMeasured: ReadonlyArray<NotMeasured>
}

export interface MeasureOptions {
  /** Rounds through all cases, forwards and backwards in turn. */
  readonly rounds: number
  /** Samples of a case that are taken, as a share of its full number: at most 1. */
  readonly share: number
  readonly onProgress: (done: number, total: number) => void
}

/** Samples before those that count, as a share of a round. */
const WARM_UP_SHARE = 0.1
const WARM_UP_MIN = 2

/** Why a case cannot be had on this machine, or null. */
export const obstacle = (session: Session, { needs = [], cpus = 1 }: LiveCase): string | null => {
  const missing = needs.find((name) => session.system.capability(KVM_CAP[name]) === 0)
  if (missing !== undefined) return `this KVM lacks KVM_CAP_${missing}`
  return session.cpus.length < cpus ? `it takes ${cpus} CPUs, this process may use ${session.cpus.length}` : null
}

/** Runs cases in rounds. One that fails is left out of the result, with its reason; the others go on. */
export const runCases = async (
  session: Session,
  cases: ReadonlyArray<LiveCase>,
  { rounds, share, onProgress }: MeasureOptions
): Promise<{
  readonly taken: ReadonlyMap<string, ReadonlyArray<Samples>>
  readonly notMeasured: ReadonlyArray<NotMeasured>
}> => {
  const taken = new Map<string, Array<Samples>>()
  const failed = new Map<string, string>()
  for (const one of cases) {
    const why = obstacle(session, one)
    if (why !== null) failed.set(one.id, why)
  }
  let done = 0
  for (let round = 0; round < rounds; round++) {
    for (const one of round % 2 === 0 ? cases : cases.toReversed()) {
      onProgress(done++, rounds * cases.length)
      if (failed.has(one.id)) continue
      const samples = Math.max(2, Math.ceil((share * one.samples) / rounds))
      const warmUp = Math.max(WARM_UP_MIN, Math.ceil(WARM_UP_SHARE * samples))
      try {
        const round = await one.run(session, { samples, warmUp })
        taken.set(one.id, [...(taken.get(one.id) ?? []), round])
      } catch (error) {
        if (!(error instanceof LiveFailed)) throw error
        failed.set(one.id, error.why)
        taken.delete(one.id)
      }
    }
  }
  const notMeasured = cases.flatMap(({ id, what }) => {
    const why = failed.get(id)
    return why === undefined ? [] : [{ id, what, why }]
  })
  return { taken, notMeasured }
}

/** Measures everything. @throws LiveFailed when not even the clock or the binding can be measured */
export const measure = async (session: Session, options: MeasureOptions): Promise<MeasureResult> => {
  const { taken, notMeasured } = await runCases(session, LIVE_CASES, options)
  return { measured: withoutOverhead(LIVE_CASES, taken), notMeasured }
}

/** What one reading of the clock, one call through the binding and one instruction of the guest add to a sample. */
export interface Overhead {
  readonly clock: number
  readonly binding: number
  readonly instruction: Instructions
}

/** Cases that everything else is corrected for. */
export const OVERHEAD_CASES: ReadonlyArray<LiveCase> = LIVE_CASES.filter(({ id }) =>
  ["clock", "binding", "guest-register", "guest-store", "guest-update"].includes(id)
)

/** @throws LiveFailed when the clock or the binding was not measured; guests that cannot be had cost nothing */
export const overheadOf = (taken: ReadonlyMap<string, ReadonlyArray<Samples>>): Overhead => {
  const median = (id: string): number | null => {
    const samples = taken.get(id)
    return samples === undefined ? null : summarize(samples).median
  }
  const clock = median("clock")
  const binding = median("binding")
  if (clock === null || binding === null) {
    throw new LiveFailed({ why: "clock or binding: not measured, so no figure can be corrected for them" })
  }
  const pair = median("guest-register") ?? 0
  const above = (id: string): number => Math.max(0, (median(id) ?? pair) - pair)
  return {
    clock,
    binding: Math.max(0, binding - clock),
    instruction: { register: pair / 2, access: above("guest-store"), update: above("guest-update") }
  }
}

const NONE: Instructions = { register: 0, access: 0, update: 0 }

/** Summaries of all cases, each without its share of the clock, the binding and the guest's own instructions. */
export const withoutOverhead = (
  cases: ReadonlyArray<LiveCase>,
  taken: ReadonlyMap<string, ReadonlyArray<Samples>>,
  overhead: Overhead = overheadOf(taken)
): ReadonlyArray<Measured> =>
  cases.flatMap(({ id, what, calls, clocks, instructions = NONE }) => {
    const raw = taken.get(id)
    if (raw === undefined) return []
    const summary = summarize(raw)
    const { clock, binding, instruction } = overhead
    const kinds = ["register", "access", "update"] as const
    const guest = kinds.reduce((ns, kind) => ns + instructions[kind] * instruction[kind], 0)
    const share = clocks * clock + calls * binding + guest
    return [{ id, what, raw, summary, overhead: share, net: Math.max(0, summary.median - share) }]
  })
