import { ACCOUNT } from "./Account.ts"
import type { CostTable } from "./CostTable.ts"
import { EventQueue } from "./EventQueue.ts"
import { HostThread, THREAD_STATE, WAIT } from "./HostThread.ts"
import { assert } from "./ModelFault.ts"
import { PRIMITIVE } from "./Primitive.ts"
import { type Core, Scheduler } from "./Scheduler.ts"
import { COUNTER, type Span } from "./Span.ts"
import type { TraceSink } from "./Trace.ts"

/** Longest run of one thread, in virtual ns, without going back to the scheduler when nothing else is pending. */
const RUN_AHEAD_NS = 100_000

/** Turns of one thread in one event: one that spins alone must not keep the scheduler from ever returning. */
const TURNS = 1_000

/** How long a thread keeps its core while others wait: the base slice of Linux' scheduler on a machine of 8 or more. */
export const TIME_SLICE_NS = 3_000_000

/**
 * How long a core must have been idle to be in its deep state, virtual ns: the ladder governor's rule, a state is
 * entered when the one before it has been stayed in for long enough. The time is an assumption.
 */
export const DEEP_IDLE_AFTER_NS = 100_000

/** Idle states that the host's cores may enter: only those without a price for leaving them, or the deep one too. */
export type CStates = "shallow" | "deep"

/** How the host is set up; what is left out is at its default. */
export interface HostOptions {
  /** Virtual ns; TIME_SLICE_NS. */
  readonly timeSliceNs?: number | undefined
  /** "shallow". */
  readonly cStates?: CStates | undefined
}

/**
 * The host's cores and threads in virtual time. Threads run ahead of each other between meeting points and are put in
 * order at them: same inputs, same order, whatever the machine that simulates.
 */
export class Host {
  readonly threads: Array<HostThread> = []
  readonly costs: CostTable
  readonly #queue = new EventQueue()
  readonly #scheduler: Scheduler
  /** Timers that were set, by their number; null once cancelled or expired. */
  readonly #timers: Array<((time: number) => void) | null> = []
  readonly #freeTimers: Array<number> = []
  /** Events taken from the queue so far. */
  events = 0
  /** Time of the latest event. */
  now = 0

  readonly #trace: TraceSink | null
  readonly #deepIdleAfterNs: number

  constructor(cores: number, costs: CostTable, trace: TraceSink | null = null, options: HostOptions = {}) {
    this.#scheduler = new Scheduler(cores, options.timeSliceNs ?? TIME_SLICE_NS)
    this.#deepIdleAfterNs = options.cStates === "deep" ? DEEP_IDLE_AFTER_NS : Infinity
    this.costs = costs
    this.#trace = trace
  }

  get cores(): ReadonlyArray<Core> {
    return this.#scheduler.cores
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
    const core = this.#scheduler.place(thread)
    if (core.current === null) this.#occupy(thread, core)
    else this.#enqueue(thread, core, time)
  }

  /**
   * Wakes a sleeping thread from a running one. The hand-off costs what it takes on the cores involved. With `span`,
   * the critical path moves to the woken thread; the waker's further steps are beside it.
   */
  wake(target: HostThread, waker: HostThread, span: Span | null): void {
    waker.note("hand-off", target.name)
    if (span !== null && waker.span === span) waker.span = null
    if (target.state === THREAD_STATE.POLLING) {
      this.#pollMet(target, waker.time, span)
      return
    }
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
    const core = this.#scheduler.place(target)
    target.readyAt = Math.max(target.time, waker.time)
    if (core.current === null) this.#handOff(target, core, waker.core, target.readyAt)
    else this.#enqueue(target, core, target.readyAt)
  }

  /**
   * Wakes a sleeping thread from an interrupt at a virtual time: nobody's critical path goes along. One that is not
   * asleep sees it when it next would sleep.
   */
  wakeAt(target: HostThread, time: number): void {
    if (target.state === THREAD_STATE.POLLING) {
      this.#pollMet(target, time, null)
      return
    }
    if (target.state !== THREAD_STATE.BLOCKED) {
      target.wakePending = true
      return
    }
    const core = this.#scheduler.place(target)
    target.readyAt = Math.max(target.time, time)
    if (core.current === null) this.#handOff(target, core, target.core, target.readyAt)
    else this.#enqueue(target, core, target.readyAt)
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

  /** True when a running thread must yield RESCHEDULE: it has used up its slice or is preempted, and another waits. */
  needResched(thread: HostThread): boolean {
    return this.#scheduler.mustYield(thread)
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
      if (payload < 0) {
        this.events++
        this.#expire(-1 - payload, time)
        continue
      }
      const thread = this.threads[payload]!
      if (thread.dueAt !== time) continue
      this.events++
      if (thread.state === THREAD_STATE.POLLING) this.#pollEnds(thread, time)
      this.now = Math.max(this.now, thread.time)
      this.#resume(thread)
    }
    return true
  }

  /** Runs a thread until it sleeps, ends, gives its core away, or must let others catch up. */
  #resume(thread: HostThread): void {
    thread.state = THREAD_STATE.RUNNING
    thread.dueAt = -1
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
        this.#reschedule(thread)
        return
      }
      if (value === WAIT.POLL && this.#pollBegins(thread)) return
      sleeping = value === WAIT.BLOCK
      if (this.ahead(thread) || ++turns > TURNS) {
        thread.blockPending = sleeping
        this.#resumeAt(thread, thread.time)
        return
      }
    }
    thread.state = THREAD_STATE.BLOCKED
    this.#release(thread)
  }

  #resumeAt(thread: HostThread, time: number): void {
    thread.state = THREAD_STATE.READY
    thread.dueAt = time
    this.#queue.push(time, thread.id)
  }

  #wakeIsPending(thread: HostThread): boolean {
    const pending = thread.wakePending
    thread.wakePending = false
    return pending
  }

  /** Lets the scheduler choose again, the thread among the others: it may keep its core at no cost. */
  #reschedule(thread: HostThread): void {
    const own = this.cores[thread.core]!
    const core = this.#scheduler.lessLoaded(thread)
    thread.readyAt = thread.time
    if (core !== own) {
      this.#scheduler.leave(thread)
      // It has had its turn: among those who run elsewhere it takes nobody's core at once.
      thread.lag = Math.min(thread.lag, 0)
      if (core.current === null) this.#handOff(thread, core, own.id, thread.time)
      else this.#enqueue(thread, core, thread.time)
      this.#dispatchNext(own, thread.readyAt)
      return
    }
    this.#scheduler.requeue(thread)
    const next = this.#scheduler.next(own)
    if (next === thread) this.#occupy(thread, own)
    else if (next !== null) this.#switchTo(next, own, thread.time)
  }

  /** @returns false when there is nothing to poll for, and the thread goes on at once */
  #pollBegins(thread: HostThread): boolean {
    thread.pollHit = this.#wakeIsPending(thread)
    if (thread.pollHit || thread.pollNs <= 0 || this.cores[thread.core]!.queue.length > 0) return false
    thread.state = THREAD_STATE.POLLING
    thread.dueAt = thread.time + thread.pollNs
    this.#queue.push(thread.dueAt, thread.id)
    return true
  }

  #pollEnds(thread: HostThread, time: number): void {
    if (time <= thread.time) return
    thread.account[ACCOUNT.POLL]! += time - thread.time
    thread.time = time
  }

  /** A wake within the window: the thread is still on its core and sees it, without a hand-off. */
  #pollMet(thread: HostThread, time: number, span: Span | null): void {
    this.#pollEnds(thread, time)
    thread.pollHit = true
    if (span !== null) thread.adopt(span)
    thread.charge(PRIMITIVE.halt_poll_wake)
    this.#resumeAt(thread, thread.time)
  }

  #occupy(thread: HostThread, core: Core): void {
    this.#scheduler.occupy(thread, core)
    this.#resumeAt(thread, thread.time)
  }

  #handOff(thread: HostThread, core: Core, fromCore: number, time: number): void {
    thread.time = time
    if (time - core.idleSince >= this.#deepIdleAfterNs) thread.charge(PRIMITIVE.deep_idle_exit)
    thread.charge(core.id === fromCore ? PRIMITIVE.thread_handoff_same_core : PRIMITIVE.thread_handoff_cross_core)
    if (thread.core !== core.id && thread.onCoreSince >= 0) thread.charge(PRIMITIVE.thread_migration)
    this.#occupy(thread, core)
  }

  #enqueue(thread: HostThread, core: Core, time: number): void {
    this.#scheduler.enqueue(thread, core, time)
    const { current } = core
    if (current?.state !== THREAD_STATE.POLLING) return
    // Nobody polls while another could use the core.
    this.#pollEnds(current, time)
    this.#resumeAt(current, current.time)
  }

  #release(thread: HostThread): void {
    this.#scheduler.leave(thread)
    this.#dispatchNext(this.cores[thread.core]!, thread.time)
  }

  /** Gives a core that has become free to the thread that the scheduler chooses. */
  #dispatchNext(core: Core, time: number): void {
    const next = this.#scheduler.next(core)
    if (next !== null) this.#switchTo(next, core, time)
  }

  /** A thread that waited for a core gets this one. */
  #switchTo(next: HostThread, core: Core, time: number): void {
    next.time = Math.max(next.time, next.readyAt, time)
    next.account[ACCOUNT.STEAL]! += next.time - next.readyAt
    // A path that joined the thread in the queue has waited since then only.
    if (next.span !== null) next.adopt(next.span)
    this.#handOff(next, core, core.id, next.time)
  }
}
