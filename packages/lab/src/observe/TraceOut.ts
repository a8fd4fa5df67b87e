import { THREAD_STATE } from "@vmpl-lab/sim"
import { Machine } from "../Machine.ts"
import type { StrategyInput } from "../RunStrategy.ts"
import { type Call, CallWatch, type Seen } from "./CallWatch.ts"
import { micros, type TraceEvent, type Track, TrackNames } from "./ChromeTrace.ts"
import { labelOf } from "./Lanes.ts"

/** Process numbers of one strategy: room for its cores, its threads, and a process for each of 512 vCPUs. */
const PIDS = 1_000
const CORES = 1
const THREADS = 2
const VCPUS = 10

/** A thread's slices that are open: what it is in, and the core that it holds. */
interface OpenSlices {
  mode: string | null
  /** Core track on which a slice is open. */
  core: Track | null
  /** Until when the thread has been seen at work. */
  end: number
}

const EVENTS_PER_CHUNK = 500

/** Turns what happens on one machine's threads into trace events. */
class StrategyTrace {
  readonly #name: string
  readonly #base: number
  readonly #emit: (event: TraceEvent) => void
  readonly #tracks: TrackNames
  readonly #open = new Map<Track, OpenSlices>()
  /** VMPL track on which a slice is open, by thread. */
  readonly #running = new Map<Track, Track>()
  readonly #threads = new Map<number, Track>()
  /** Whose slice is open on a core. */
  readonly #holders = new Map<Track["tid"], OpenSlices>()
  #runnable = -1
  /** #VMEXITs of each guest vCPU, by its process. */
  readonly #exits = new Map<number, number>()
  calls = 0

  constructor(index: number, name: string, emit: (event: TraceEvent) => void) {
    this.#base = (index + 1) * PIDS
    this.#name = name
    this.#emit = emit
    this.#tracks = new TrackNames(emit)
  }

  /** Whether there is a first value of every counter. */
  get begun(): boolean {
    return this.#runnable >= 0
  }

  step(seen: Seen, apicId: number): void {
    const track = this.#threadTrack(seen)
    const slices = this.#slicesOf(track)
    const begin = seen.end - seen.ns
    switch (seen.kind) {
      case "charge":
        if (seen.ns === 0) return
        this.#enter(track, slices, seen, begin)
        this.#slice(track, seen, begin)
        slices.end = seen.end
        return
      case "VMRUN":
        this.#mode(track, slices, `guest VMPL${seen.value}`, seen.end)
        this.#runVmpl(track, apicId, Number(seen.value), seen.end)
        return
      case "#VMEXIT":
        this.#mode(track, slices, null, seen.end)
        this.#leaveVmpl(track, seen.end, labelOf(seen.kind, seen.value))
        return
      default:
        this.#instant(track, seen)
    }
  }

  /** How many threads run or wait for a core, at a time up to which the whole host has been simulated. */
  runnable(now: number, threads: number): void {
    if (threads === this.#runnable) return
    this.#runnable = threads
    const track = { pid: this.#base + CORES, tid: 0 }
    this.#emit({ ph: "C", ...track, name: "runnable threads", ts: micros(now), args: { threads } })
  }

  /** The arrows of a call: along its path from thread to thread, and through every exit. */
  flow({ events }: Call): void {
    const path = events.flatMap(({ seen, onPath }) => (onPath && seen.kind === "charge" && seen.ns > 0 ? seen : []))
    const turns = path.filter(
      (seen, i) =>
        i === 0 ||
        i === path.length - 1 ||
        path[i - 1]!.thread !== seen.thread ||
        path[i - 1]!.core !== seen.core ||
        seen.vmpl !== path[i - 1]!.vmpl
    )
    const id = `${this.#base}.${this.calls++}`
    turns.forEach((seen, i) => {
      const ph = i === 0 ? "s" : i === turns.length - 1 ? "f" : "t"
      const ts = micros(seen.end - seen.ns)
      this.#emit({ ph, ...this.#threadTrack(seen), name: "call", cat: "call", id, ts, bp: "e" })
    })
  }

  /** Ends what is still open, where each thread was last seen. */
  close(): void {
    for (const [track, slices] of this.#open) {
      this.#leaveVmpl(track, slices.end, null)
      this.#mode(track, slices, null, slices.end)
      this.#leaveCore(slices, slices.end)
    }
  }

  #threadTrack({ thread }: Seen): Track {
    let track = this.#threads.get(thread.id)
    if (track === undefined) {
      track = this.#tracks.track(this.#base + THREADS, `${this.#name}: threads`, thread.id, thread.name)
      this.#threads.set(thread.id, track)
    }
    return track
  }

  #slicesOf(track: Track): OpenSlices {
    let slices = this.#open.get(track)
    if (slices === undefined) {
      slices = { mode: null, core: null, end: 0 }
      this.#open.set(track, slices)
    }
    return slices
  }

  /** A charge begins: after a pause in the host the thread has slept, and may be on another core. */
  #enter(track: Track, slices: OpenSlices, seen: Seen, begin: number): void {
    const inGuest = this.#running.has(track)
    const slept = begin > slices.end && !inGuest
    const core = this.#tracks.track(this.#base + CORES, `${this.#name}: cores`, seen.core, `core ${seen.core}`)
    if (slept || slices.core === null || slices.core.tid !== core.tid) {
      if (!inGuest) this.#mode(track, slices, null, slices.end)
      this.#leaveCore(slices, inGuest ? begin : slices.end)
      // A thread that sleeps says nothing: that it has left is known once another one takes its core.
      const holder = this.#holders.get(core.tid)
      if (holder !== undefined && holder.core?.tid === core.tid) this.#leaveCore(holder, holder.end)
      this.#holders.set(core.tid, slices)
      slices.core = core
      this.#emit({ ph: "B", ...core, name: seen.thread.name, ts: micros(begin) })
    }
    if (inGuest) return
    const mode = seen.lane === "VMM" ? "VMM" : seen.lane === "KVM" ? "KVM" : (slices.mode ?? "KVM")
    if (mode !== slices.mode) this.#mode(track, slices, mode, begin)
  }

  #leaveCore(slices: OpenSlices, end: number): void {
    if (slices.core === null) return
    this.#emit({ ph: "E", ...slices.core, ts: micros(end) })
    slices.core = null
  }

  #mode(track: Track, slices: OpenSlices, mode: string | null, time: number): void {
    if (slices.mode !== null) this.#emit({ ph: "E", ...track, ts: micros(time) })
    if (mode !== null) this.#emit({ ph: "B", ...track, name: mode, ts: micros(time) })
    slices.mode = mode
    slices.end = Math.max(slices.end, time)
  }

  #slice(track: Track, seen: Seen, begin: number): void {
    const args = { ns: seen.ns, core: seen.core, lane: seen.lane }
    const name = labelOf(seen.kind, seen.value)
    this.#emit({ ph: "X", ...track, name, cat: seen.lane, ts: micros(begin), dur: micros(seen.ns), args })
  }

  #instant(track: Track, seen: Seen): void {
    const args = seen.ns === 0 ? {} : { ns: seen.ns }
    const name = labelOf(seen.kind, seen.value)
    this.#emit({ ph: "i", ...track, name, cat: seen.lane, ts: micros(seen.end), s: "t", args })
  }

  #runVmpl(thread: Track, apicId: number, vmpl: number, time: number): void {
    const track = this.#tracks.track(
      this.#base + VCPUS + apicId,
      `${this.#name}: guest vCPU ${apicId}`,
      vmpl,
      `VMPL${vmpl}`
    )
    this.#running.set(thread, track)
    this.#emit({ ph: "B", ...track, name: `VMPL${vmpl}`, ts: micros(time) })
  }

  #leaveVmpl(thread: Track, time: number, why: string | null): void {
    const track = this.#running.get(thread)
    if (track === undefined) return
    this.#running.delete(thread)
    this.#emit({ ph: "E", ...track, ts: micros(time), args: why === null ? {} : { exit: why } })
    if (why === null) return
    const count = (this.#exits.get(track.pid) ?? 0) + 1
    this.#exits.set(track.pid, count)
    this.#emit({ ph: "C", pid: track.pid, tid: 0, name: "VMEXITs", ts: micros(time), args: { count } })
  }
}

const awake = ({ host }: Machine): number =>
  host.threads.filter(({ state }) => state !== THREAD_STATE.BLOCKED && state !== THREAD_STATE.DONE).length

/** What was traced of one strategy. `calls` of `planned` have arrows; the trace ends with the last of them. */
export interface TracedStrategy {
  readonly strategy: string
  readonly variant: string | null
  readonly calls: number
  readonly planned: number
}

/**
 * Runs the first boot of a strategy again, with the same seed, and gives its trace from the moment the first vCPU is up
 * until `calls` round trips are over, as lines of trace events each ending in a comma. Yields them as they come: what is
 * held does not grow with the run.
 */
export function* traceStrategy(
  input: StrategyInput,
  index: number,
  calls: number
): Generator<string, TracedStrategy, void> {
  const { strategy, scenario, profile, seed, svsm } = input
  const { key, variant } = strategy
  let text = ""
  const emit = (event: TraceEvent): void => {
    text += `${JSON.stringify(event)},\n`
  }
  const trace = new StrategyTrace(index, variant === null ? key : `${key}/${variant}`, emit)
  const watch: CallWatch = new CallWatch(
    () => machine,
    (get) => {
      const call = trace.calls < calls ? get() : null
      if (call !== null) trace.flow(call)
    }
  )
  const machine: Machine = new Machine({
    ...{ strategy, scenario, profile, seed, svsm },
    boot: 0,
    calls: true,
    trace: (thread, kind, value, ns) => {
      const seen = watch.see(thread, kind, value, ns)
      if (machine.log.started === 0 || trace.calls >= calls) return
      if (!trace.begun) trace.runnable(machine.host.now, awake(machine))
      trace.step(seen, watch.apicId(thread))
    }
  })
  while (trace.calls < calls && machine.stepMany(machine.log.started > 0 ? 1 : EVENTS_PER_CHUNK)) {
    if (machine.log.started > 0) trace.runnable(machine.host.now, awake(machine))
    if (text.length < 1 << 16) continue
    yield text
    text = ""
  }
  watch.check()
  trace.close()
  yield text
  return { strategy: key, variant, calls: trace.calls, planned: scenario.calls * scenario.vcpus }
}
