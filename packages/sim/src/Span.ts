import { PRIMITIVES } from "./Primitive.ts"

/** Index, after the primitives, of the time a runnable thread waited for a core that another thread held. */
export const CORE_WAIT = PRIMITIVES.length

/** What the host did on the way, counted apart from what it cost. */
export const COUNTER = { VM_EXITS: 0, USER_EXITS: 1, IOCTLS: 2, THREAD_HAND_OFFS: 3, KICKS: 4, TLB_FLUSHES: 5 } as const
const COUNTERS = 6

/**
 * The critical path of one operation. It travels with the work: when one thread hands over to another, the span goes
 * along, so that its charges add up to the operation's latency and nothing beside the path is counted.
 */
export class Span {
  /** Virtual time at which the operation began. */
  begin = 0
  /** Nanoseconds charged, by primitive; the last element is CORE_WAIT. */
  readonly ns = new Float64Array(PRIMITIVES.length + 1)
  /** Executions, by primitive. */
  readonly count = new Int32Array(PRIMITIVES.length + 1)
  readonly counters = new Int32Array(COUNTERS)
  /**
   * What has been charged, in the order of the first charge of each: the first `kinds` elements. Most primitives have
   * no part in an operation, and spans are started and added up at every exit.
   */
  readonly charged = new Int32Array(PRIMITIVES.length + 1)
  kinds = 0
  #total = 0

  start(time: number): void {
    this.begin = time
    for (let i = 0; i < this.kinds; i++) {
      this.ns[this.charged[i]!] = 0
      this.count[this.charged[i]!] = 0
    }
    this.kinds = 0
    this.#total = 0
    this.counters.fill(0)
  }

  add(primitive: number, ns: number): void {
    if (this.count[primitive] === 0) this.charged[this.kinds++] = primitive
    this.ns[primitive]! += ns
    this.count[primitive]! += 1
    this.#total += ns
  }

  /** Sum of all charges: equal to the latency at the operation's end. */
  total(): number {
    return this.#total
  }
}
