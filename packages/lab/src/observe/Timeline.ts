import { Machine } from "../Machine.ts"
import type { StrategyInput } from "../RunStrategy.ts"
import { type Call, CallWatch } from "./CallWatch.ts"
import { type Lane, labelOf } from "./Lanes.ts"

/** One step of a call. Times are virtual nanoseconds; `atNs` counts from the call's first exit. */
export interface TimelineStep {
  readonly atNs: number
  /** 0 for an event without a duration. */
  readonly ns: number
  readonly lane: Lane
  readonly thread: string
  readonly core: number
  /** VMPL that runs, is entered or is left; null in the host. */
  readonly vmpl: number | null
  /** A primitive, `core_wait`, or an event such as `#VMEXIT VMGEXIT`. */
  readonly label: string
  /** Whether it counts for the latency. The service between the two switches, and what a thread does beside, do not. */
  readonly onPath: boolean
}

/** One thread wakes another. */
export interface TimelineHandOff {
  readonly fromThread: string
  readonly toThread: string
  readonly atNs: number
}

/** One call with the median latency, step by step. The `ns` of the steps on the path add up to `ns`. */
export interface Timeline {
  readonly strategy: string
  readonly variant: string | null
  readonly operation: "run-vmpl-round-trip"
  readonly ns: number
  /** From the first exit to the return, the service in between included. */
  readonly elapsedNs: number
  readonly steps: ReadonlyArray<TimelineStep>
  readonly handOffs: ReadonlyArray<TimelineHandOff>
}

const EVENTS_PER_CHUNK = 2_000

const timelineOf = ({ strategy }: StrategyInput, { begin, end, ns, events }: Call): Timeline => {
  const threads = new Set(events.map(({ seen }) => seen.thread.name))
  return {
    strategy: strategy.key,
    variant: strategy.variant,
    operation: "run-vmpl-round-trip",
    ns,
    elapsedNs: end - begin,
    steps: events.flatMap(({ seen, onPath }) =>
      seen.kind === "hand-off"
        ? []
        : {
            atNs: seen.end - seen.ns - begin,
            ns: seen.ns,
            lane: seen.lane,
            thread: seen.thread.name,
            core: seen.core,
            vmpl: seen.lane === "guest" || seen.lane === "hardware" ? seen.vmpl : null,
            label: labelOf(seen.kind, seen.value),
            onPath
          }
    ),
    handOffs: events.flatMap(({ seen }) =>
      seen.kind === "hand-off" && threads.has(String(seen.value))
        ? { fromThread: seen.thread.name, toThread: String(seen.value), atNs: seen.end - begin }
        : []
    )
  }
}

/**
 * Runs the first boot again, with the same seed and under observation, until a call takes `medianNs`: equal seeds give
 * equal runs, so there is one. Yields between chunks of work.
 *
 * @returns null when no such call can be told step by step, for instance without any calls
 */
export function* medianTimeline(input: StrategyInput, medianNs: number): Generator<void, Timeline | null, void> {
  const { strategy, scenario, profile, seed, svsm } = input
  let call: Call | null = null
  const watch: CallWatch = new CallWatch(
    () => machine,
    (get, ns) => {
      if (ns === medianNs) call ??= get()
    }
  )
  const machine: Machine = new Machine({
    ...{ strategy, scenario, profile, seed, svsm },
    boot: 0,
    calls: true,
    trace: (thread, kind, value, ns) => {
      if (call === null) watch.see(thread, kind, value, ns)
    }
  })
  while (call === null && machine.stepMany(EVENTS_PER_CHUNK)) yield
  if (call === null) watch.check()
  return call === null ? null : timelineOf(input, call)
}
