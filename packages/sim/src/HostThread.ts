import type { CostTable } from "./CostTable.ts"
import { CORE_WAIT, type Span } from "./Span.ts"
import type { TraceKind, TraceSink } from "./Trace.ts"

/** What a host thread asks of the scheduler when it yields. */
export const WAIT = {
  /** Let everything that happens before my time happen first. */
  SYNC: 0,
  /** Sleep until another thread wakes me. */
  BLOCK: 1,
  /** My time slice is over and others wait for a core: go to the end of the queue. */
  RESCHEDULE: 2
} as const
export type Wait = (typeof WAIT)[keyof typeof WAIT]

/** The code of a host thread: it charges time as it goes and yields where it meets others. */
export type HostProgram<R = void> = Generator<Wait, R, void>

export const THREAD_STATE = { BLOCKED: 0, READY: 1, RUNNING: 2, QUEUED: 3, DONE: 4 } as const
export type ThreadState = (typeof THREAD_STATE)[keyof typeof THREAD_STATE]

/** A thread of the host's user space (a vCPU thread or the VMM's main thread) on simulated cores. */
export class HostThread {
  readonly id: number
  readonly name: string
  /** Core to which the thread is pinned, or -1. */
  readonly affinity: number
  /** Core on which it runs or last ran. */
  core: number
  /** Its own clock: virtual nanoseconds. It may be ahead of the scheduler between two meeting points. */
  time = 0
  state: ThreadState = THREAD_STATE.BLOCKED
  /** A wake that came while the thread was not asleep; the next sleep returns at once. */
  wakePending = false
  /** Since when it has been on its core. */
  onCoreSince = 0
  /** It asked to sleep while its clock was ahead: the sleep begins when the others have caught up. */
  blockPending = false
  /** Time since which it waits for a core, while QUEUED. */
  readyAt = 0
  /** Core time that it was charged, in virtual ns. */
  cpuNs = 0
  /** Time that it was runnable but waited for a core, in virtual ns. */
  waitedNs = 0
  /** The operation whose critical path runs through this thread, if any. */
  span: Span | null = null
  program: HostProgram | null = null
  readonly #costs: CostTable
  readonly #trace: TraceSink | null

  constructor(id: number, name: string, affinity: number, core: number, costs: CostTable, trace: TraceSink | null) {
    this.id = id
    this.name = name
    this.affinity = affinity
    this.core = core
    this.#costs = costs
    this.#trace = trace
  }

  /** Takes one step of the given kind: its time passes on this thread and counts for the current operation. */
  charge(primitive: number): void {
    const ns = this.#costs.sample(primitive)
    this.time += ns
    this.cpuNs += ns
    if (this.span !== null) this.span.add(primitive, ns)
    if (this.#trace !== null) this.#trace(this, "charge", primitive)
  }

  /** Tells the trace, if there is one. */
  note(kind: TraceKind, value: number | string): void {
    if (this.#trace !== null) this.#trace(this, kind, value)
  }

  /** Counts something that happened (index of COUNTER) for the current operation. */
  count(counter: number): void {
    if (this.span !== null) this.span.counters[counter]! += 1
  }

  /**
   * Takes over the critical path of an operation that reached this thread while it was busy: what passed between the
   * path's last charge and now was waiting for this core.
   */
  adopt(span: Span): void {
    const gap = this.time - (span.begin + span.total())
    if (gap > 0) span.add(CORE_WAIT, gap)
    this.span = span
  }
}
