import type { CostTable } from "./CostTable.ts"
import { EventQueue } from "./EventQueue.ts"
import { HostThread, THREAD_STATE, WAIT } from "./HostThread.ts"
import { assert } from "./ModelFault.ts"
import { PRIMITIVE } from "./Primitive.ts"
import { COUNTER, type Span } from "./Span.ts"
import type { TraceSink } from "./Trace.ts"

/** A host core: at most one thread occupies it; others queue first come, first served. */
class Core {
  readonly id: number
  current: HostThread | null = null
  readonly runQueue: Array<HostThread> = []

  constructor(id: number) {
    this.id = id
  }
}

/** Longest run of one thread, in virtual ns, without going back to the scheduler when nothing else is pending. */
const RUN_AHEAD_NS = 100_000

/** Turns of one thread in one event: one that spins alone must not keep the scheduler from ever returning. */
const TURNS = 1_000

/** How long a thread keeps its core while others wait: the base slice of Linux' scheduler on a machine of 8 or more. */
export const TIME_SLICE_NS = 3_000_000

/**
 * The host's cores and threads in virtual time. Threads run ahead of each other between meeting points and are put in
 * order at them: same inputs, same order, whatever the machine that simulates.
 */
export class Host {
  readonly cores: ReadonlyArray<Core>
  readonly threads: Array<HostThread> = []
  readonly costs: CostTable
  readonly #queue = new EventQueue()
  /** Threads that are not pinned and found no idle core, first come, first served: an idle core takes the first. */
  readonly #waiting: Array<HostThread> = []
  /** Timers that were set, by their number; null once cancelled or expired. */
  readonly #timers: Array<((time: number) => void) | null> = []
  readonly #freeTimers: Array<number> = []
  /** Events taken from the queue so far. */
  events = 0
  /** Time of the latest event. */
  now = 0

  readonly #trace: TraceSink | null
  readonly #timeSliceNs: number

  constructor(cores: number, costs: CostTable, trace: TraceSink | null = null, timeSliceNs = TIME_SLICE_NS) {
    this.cores = Array.from({ length: cores }, (_, id) => new Core(id))
    this.costs = costs
    this.#trace = trace
    this.#timeSliceNs = timeSliceNs
  }

  /**
   * A new thread, asleep until its first wake; the caller gives it its program before that. `affinity` pins it to a
   * core; -1 lets the scheduler place it.
   */
  spawn(name: string, affinity: number): HostThread {
    const id = this.threads.length
    const home = affinity >= 0 ? affinity % this.cores.length : id % this.cores.length
    const thread = new HostThread(id, name, affinity < 0 ? -1 : home, home, this.costs, this.#trace)
    this.threads.push(thread)
    return thread
  }

  /** Starts a thread at a time without a waker: the first thread of a process. */
  start(thread: HostThread, time: number): void {
    assert(thread.state === THREAD_STATE.BLOCKED, `${thread.name} is started twice`)
    thread.time = time
    thread.readyAt = time
    const core = this.cores[this.#place(thread)]!
    if (core.current === null) this.#occupy(thread, core)
    else this.#enqueue(thread)
  }

  /**
   * Wakes a sleeping thread from a running one. The hand-off costs what it takes on the cores involved. With `span`,
   * the critical path moves to the woken thread; the waker's further steps are beside it.
   */
  wake(target: HostThread, waker: HostThread, span: Span | null): void {
    waker.note("hand-off", target.name)
    if (span !== null && waker.span === span) waker.span = null
    if (target.state !== THREAD_STATE.BLOCKED) {
      // The wake meets a thread that has not gone to sleep yet: it goes on without a hand-off.
      target.wakePending = true
      target.time = Math.max(target.time, waker.time)
      const path = span ?? target.span
      if (path !== null) target.adopt(path)
      return
    }
    if (span !== null) {
      target.span = span
      span.counters[COUNTER.THREAD_HAND_OFFS]! += 1
    }
    const core = this.cores[this.#place(target)]!
    target.readyAt = Math.max(target.time, waker.time)
    if (core.current === null) this.#handOff(target, core, waker.core, target.readyAt)
    else this.#enqueue(target)
  }

  /**
   * Wakes a sleeping thread from an interrupt at a virtual time: nobody's critical path goes along. One that is not
   * asleep sees it when it next would sleep.
   */
  wakeAt(target: HostThread, time: number): void {
    if (target.state !== THREAD_STATE.BLOCKED) {
      target.wakePending = true
      return
    }
    const core = this.cores[this.#place(target)]!
    target.readyAt = Math.max(target.time, time)
    if (core.current === null) this.#handOff(target, core, target.core, target.readyAt)
    else this.#enqueue(target)
  }

  /** Calls `expired` when virtual time has come to `time`. @returns the timer's number, for `cancelTimer` */
  setTimer(time: number, expired: (time: number) => void): number {
    const timer = this.#freeTimers.pop() ?? this.#timers.length
    this.#timers[timer] = expired
    this.#queue.push(time, -1 - timer)
    return timer
  }

  cancelTimer(timer: number): void {
    this.#timers[timer] = null
  }

  #expire(timer: number, time: number): void {
    const expired = this.#timers[timer]!
    this.#timers[timer] = null
    this.#freeTimers.push(timer)
    this.now = Math.max(this.now, time)
    expired?.(time)
  }

  /** True when a thread has used up its time slice and another one waits for its core: it must yield RESCHEDULE. */
  sliceIsOver(thread: HostThread): boolean {
    if (thread.time - thread.onCoreSince < this.#timeSliceNs) return false
    return this.#waiting.length > 0 || this.cores[thread.core]!.runQueue.length > 0
  }

  /** True when the thread's clock has passed the next event: it must yield SYNC before it meets anybody. */
  ahead(thread: HostThread): boolean {
    return thread.time > this.#queue.peekTime()
  }

  /** How far a thread may run on its own: to the next event, or a bounded stretch when there is none. */
  horizon(thread: HostThread): number {
    return Math.min(this.#queue.peekTime(), thread.time + RUN_AHEAD_NS)
  }

  /** Runs up to `maxEvents` events. False when nothing is left to run. */
  stepMany(maxEvents: number): boolean {
    for (let i = 0; i < maxEvents; i++) {
      if (this.#queue.size === 0) return false
      const time = this.#queue.peekTime()
      const payload = this.#queue.pop()
      this.events++
      if (payload < 0) {
        this.#expire(-1 - payload, time)
        continue
      }
      const thread = this.threads[payload]!
      this.now = Math.max(this.now, thread.time)
      this.#resume(thread)
    }
    return true
  }

  /** Runs a thread until it sleeps, ends, gives its core away, or must let others catch up. */
  #resume(thread: HostThread): void {
    thread.state = THREAD_STATE.RUNNING
    let sleeping = thread.blockPending
    thread.blockPending = false
    let turns = 0
    while (!(sleeping && !this.#wakeIsPending(thread))) {
      const { done, value } = thread.program!.next()
      // An end that is ahead of the others waits for them: until then the core is taken.
      if (done && !this.ahead(thread)) {
        thread.state = THREAD_STATE.DONE
        this.#release(thread)
        return
      }
      if (value === WAIT.RESCHEDULE) {
        this.#yieldCore(thread)
        return
      }
      sleeping = value === WAIT.BLOCK
      if (this.ahead(thread) || ++turns > TURNS) {
        thread.blockPending = sleeping
        thread.state = THREAD_STATE.READY
        this.#queue.push(thread.time, thread.id)
        return
      }
    }
    thread.state = THREAD_STATE.BLOCKED
    this.#release(thread)
  }

  /** Gives the core to those who wait for it, and goes to an idle one or to the end of the queue. */
  #yieldCore(thread: HostThread): void {
    const from = thread.core
    const core = this.cores[this.#place(thread)]!
    const idle = core.current === null
    thread.readyAt = thread.time
    if (!idle) this.#enqueue(thread)
    this.#release(thread)
    if (idle) this.#handOff(thread, core, from, thread.time)
  }

  #wakeIsPending(thread: HostThread): boolean {
    const pending = thread.wakePending
    thread.wakePending = false
    return pending
  }

  #place(thread: HostThread): number {
    if (thread.affinity >= 0) return thread.affinity
    if (this.cores[thread.core]!.current === null) return thread.core
    for (let step = 1; step < this.cores.length; step++) {
      const id = (thread.core + step) % this.cores.length
      if (this.cores[id]!.current === null) return id
    }
    return thread.core
  }

  #occupy(thread: HostThread, core: Core): void {
    core.current = thread
    thread.core = core.id
    thread.onCoreSince = thread.time
    thread.state = THREAD_STATE.READY
    this.#queue.push(thread.time, thread.id)
  }

  #handOff(thread: HostThread, core: Core, fromCore: number, time: number): void {
    thread.time = time
    thread.charge(core.id === fromCore ? PRIMITIVE.thread_handoff_same_core : PRIMITIVE.thread_handoff_cross_core)
    this.#occupy(thread, core)
  }

  #enqueue(thread: HostThread): void {
    thread.state = THREAD_STATE.QUEUED
    if (thread.affinity >= 0) this.cores[thread.affinity]!.runQueue.push(thread)
    else this.#waiting.push(thread)
  }

  #release(thread: HostThread): void {
    this.#dispatchNext(this.cores[thread.core]!, thread.time)
  }

  /** Gives a core that has become free to whoever has waited longest for it. */
  #dispatchNext(core: Core, time: number): void {
    core.current = null
    const pinned = core.runQueue[0]
    const any = this.#waiting[0]
    if (pinned === undefined && any === undefined) return
    const takePinned = any === undefined || (pinned !== undefined && pinned.readyAt <= any.readyAt)
    const next = (takePinned ? core.runQueue : this.#waiting).shift()!
    next.time = Math.max(next.time, next.readyAt, time)
    next.waitedNs += next.time - next.readyAt
    // A path that joined the thread in the queue has waited since then only.
    if (next.span !== null) next.adopt(next.span)
    this.#handOff(next, core, core.id, next.time)
  }
}
