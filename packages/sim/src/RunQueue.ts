import type { HostThread } from "./HostThread.ts"

/**
 * The runnable threads that wait for one core, by virtual deadline, first come first among equals: a list through the
 * threads themselves, so that queueing allocates nothing.
 */
export class RunQueue {
  length = 0
  /** How many of them are not pinned: another core may take them. */
  movable = 0
  /** Sum of their virtual run times. It grows like the time for which the queue was never empty: exact in a double. */
  vruntimes = 0
  #first: HostThread | null = null
  #last: HostThread | null = null

  add(thread: HostThread): void {
    let before = this.#last
    while (before !== null && before.deadline > thread.deadline) before = before.previous
    const after = before === null ? this.#first : before.next
    thread.previous = before
    thread.next = after
    if (before === null) this.#first = thread
    else before.next = thread
    if (after === null) this.#last = thread
    else after.previous = thread
    this.#count(thread, 1)
  }

  remove(thread: HostThread): void {
    const { previous, next } = thread
    if (previous === null) this.#first = next
    else previous.next = next
    if (next === null) this.#last = previous
    else next.previous = previous
    thread.previous = null
    thread.next = null
    this.#count(thread, -1)
  }

  /**
   * The thread with the earliest deadline of those that have had no more than their share: whose virtual run time is
   * not above the mean. The one that runs competes too: `vruntimes` and `length` are with it, where there is one.
   */
  pick(vruntimes: number, length: number): HostThread | null {
    for (let thread = this.#first; thread !== null; thread = thread.next) {
      if (thread.vruntime * length <= vruntimes) return thread
    }
    return null
  }

  firstMovable(): HostThread | null {
    let thread = this.#first
    while (thread !== null && thread.affinity >= 0) thread = thread.next
    return thread
  }

  #count(thread: HostThread, by: number): void {
    this.length += by
    this.vruntimes += by * thread.vruntime
    if (thread.affinity < 0) this.movable += by
  }
}
