import { type HostThread, THREAD_STATE } from "./HostThread.ts"
import { assert } from "./ModelFault.ts"
import { RunQueue } from "./RunQueue.ts"

/** A host core: at most one thread occupies it, others wait in its run queue. */
export class Core {
  readonly id: number
  current: HostThread | null = null
  readonly queue = new RunQueue()
  /** Since when it has been idle, virtual ns; Infinity while a thread occupies it. */
  idleSince = 0
  /** A thread in the queue is to have the core before the current one's slice is over. */
  preempt = false

  constructor(id: number) {
    this.id = id
  }
}

/**
 * Which thread runs where: one run queue per core, with the rule of Linux' EEVDF scheduler for threads of equal weight.
 * Every thread has a virtual run time on its core, which grows while it runs, and a virtual deadline one slice after
 * the run time at which its request began. The core goes to the earliest deadline among those whose run time is not
 * above the mean of all that compete for it. A thread that sleeps keeps its lag (mean less its own run time, one slice
 * at most either way), so that one that had less than its share is served at once when it wakes, and one that had more
 * is not. It holds no clock and charges nothing: the host does.
 *
 * Between cores: a woken thread goes to its last core if that is idle, else to the next idle one, else it queues at its
 * last; a core without work takes a thread that is not pinned from the longest queue; a thread whose slice is over
 * joins the core with the fewest runnable threads. So no core is idle while a thread that may use it waits.
 */
export class Scheduler {
  readonly cores: ReadonlyArray<Core>
  readonly #sliceNs: number
  /** Cores that nobody occupies, and threads in queues that are not pinned: most questions end with these numbers. */
  #idle: number
  #movable = 0

  constructor(cores: number, sliceNs: number) {
    this.cores = Array.from({ length: cores }, (_, id) => new Core(id))
    this.#idle = cores
    this.#sliceNs = sliceNs
  }

  /** Wake-up placement. */
  place(thread: HostThread): Core {
    const home = this.cores[thread.core]!
    if (thread.affinity >= 0 || home.current === null || this.#idle === 0) return home
    for (let step = 1; step < this.cores.length; step++) {
      const core = this.cores[(thread.core + step) % this.cores.length]!
      if (core.current === null) return core
    }
    return home
  }

  /** Puts a thread on a core that nobody occupies. */
  occupy(thread: HostThread, core: Core): void {
    if (core.queue.length === 0) {
      // Alone it has no share to keep to: run times count from here.
      thread.vruntime = 0
      thread.deadline = this.#sliceNs
    }
    this.#take(thread, core)
  }

  /** Queues a thread that became runnable at `time` at a core that another one occupies. */
  enqueue(thread: HostThread, core: Core, time: number): void {
    const { current, queue } = core
    assert(current !== null, "a thread queues only where another one runs")
    const ran = this.#vruntime(current, time)
    // Slices follow each other while a thread is alone: it is within one when the first rival comes.
    if (queue.length === 0 && ran >= current.deadline) {
      const slices = Math.floor((ran - current.deadline) / this.#sliceNs) + 1
      current.deadline += slices * this.#sliceNs
    }
    thread.vruntime = this.#mean(queue, ran) - thread.lag
    thread.deadline = thread.vruntime + this.#sliceNs
    this.#join(thread, core)
    const sum = queue.vruntimes + ran
    const length = queue.length + 1
    if (ran * length > sum && queue.pick(sum, length) === thread) core.preempt = true
  }

  /** True when the thread that occupies the core has used up its slice or is preempted, and somebody waits. */
  mustYield(thread: HostThread): boolean {
    const core = this.cores[thread.core]!
    if (core.queue.length === 0) return false
    return core.preempt || this.#vruntime(thread, thread.time) >= thread.deadline
  }

  /** Where a thread that gives up its core goes: to a core with fewer runnable threads than its own, else nowhere. */
  lessLoaded(thread: HostThread): Core {
    const own = this.cores[thread.core]!
    if (thread.affinity >= 0) return own
    let best = own
    let load = own.queue.length + 1
    for (let step = 1; step < this.cores.length && load > 0; step++) {
      const core = this.cores[(thread.core + step) % this.cores.length]!
      const other = core.queue.length + (core.current === null ? 0 : 1)
      if (other < load) {
        best = core
        load = other
      }
    }
    return best
  }

  /** Back into its own core's queue, its run time and deadline with it; a request that is over is followed by a next. */
  requeue(thread: HostThread): void {
    const core = this.cores[thread.core]!
    thread.vruntime = this.#vruntime(thread, thread.time)
    if (thread.vruntime >= thread.deadline) thread.deadline = thread.vruntime + this.#sliceNs
    this.#vacate(core, thread.time)
    this.#join(thread, core)
  }

  /** The thread leaves its core: to sleep, for another core, or for good. */
  leave(thread: HostThread): void {
    const core = this.cores[thread.core]!
    const ran = this.#vruntime(thread, thread.time)
    thread.lag = this.#bounded(this.#mean(core.queue, ran) - ran)
    this.#vacate(core, thread.time)
  }

  /** Takes the next thread for an idle core out of its queue, or out of the longest other one. Null: it stays idle. */
  next(core: Core): HostThread | null {
    const { queue } = core
    if (queue.length > 0) {
      const thread = queue.pick(queue.vruntimes, queue.length)!
      this.#part(thread, core)
      return thread
    }
    return this.#movable === 0 ? null : this.#pull()
  }

  #pull(): HostThread | null {
    let longest: Core | null = null
    for (const core of this.cores) {
      if (core.queue.movable > 0 && (longest === null || core.queue.length > longest.queue.length)) longest = core
    }
    const thread = longest?.queue.firstMovable() ?? null
    assert(longest !== null && thread !== null, "a thread that is not pinned waits in some queue")
    const { current, queue } = longest
    if (current !== null) {
      thread.lag = this.#bounded(this.#mean(queue, this.#vruntime(current, current.time)) - thread.vruntime)
    }
    this.#part(thread, longest)
    if (longest.queue.length === 0) longest.preempt = false
    return thread
  }

  /** Virtual run time of the thread on a core, at a time. Its own clock may be ahead of it. */
  #vruntime(thread: HostThread, time: number): number {
    return thread.vruntime + Math.max(0, time - thread.onCoreSince)
  }

  /** Mean virtual run time of those in a queue and the one that runs. */
  #mean(queue: RunQueue, running: number): number {
    return Math.floor((queue.vruntimes + running) / (queue.length + 1))
  }

  #bounded(lag: number): number {
    return Math.max(-this.#sliceNs, Math.min(this.#sliceNs, lag))
  }

  #take(thread: HostThread, core: Core): void {
    core.current = thread
    core.idleSince = Infinity
    core.preempt = false
    this.#idle--
    thread.core = core.id
    thread.onCoreSince = thread.time
  }

  #vacate(core: Core, time: number): void {
    core.current = null
    core.idleSince = time
    this.#idle++
  }

  #join(thread: HostThread, core: Core): void {
    thread.state = THREAD_STATE.QUEUED
    core.queue.add(thread)
    if (thread.affinity < 0) this.#movable++
  }

  #part(thread: HostThread, core: Core): void {
    core.queue.remove(thread)
    if (thread.affinity < 0) this.#movable--
  }
}
