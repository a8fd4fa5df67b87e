import type { HostThread, Span, TraceKind } from "@vmpl-lab/sim"
import type { Machine } from "../Machine.ts"
import { type Lane, ThreadLanes } from "./Lanes.ts"

/** One event of a host thread, as it happened. Times are virtual nanoseconds since power-on. */
export interface Seen {
  readonly thread: HostThread
  readonly core: number
  readonly kind: TraceKind
  readonly value: number | string
  /** When it was over, and how long it took: 0 for what has no duration. */
  readonly end: number
  readonly ns: number
  readonly lane: Lane
  /** VMPL that runs on the thread, or has just been left; null in the host. */
  readonly vmpl: number | null
  readonly span: Span | null
}

/** One switch that has arrived: its span is used again later, so its figures are kept. */
interface Arrival {
  readonly span: Span
  readonly begin: number
  readonly ns: number
  readonly end: number
}

/** One round trip as it was seen: everything that the threads involved did from its first exit to its last entry. */
export interface Call {
  /** Virtual time of the exit that asked, and of the arrival back at the caller. */
  readonly begin: number
  readonly end: number
  /** The measured latency: the steps on the path add up to it. What lies between the two switches is beside it. */
  readonly ns: number
  /** By begin, then in the order in which they happened. */
  readonly events: ReadonlyArray<{ readonly seen: Seen; readonly onPath: boolean }>
}

/** Events kept at the least. A call of one of 512 vCPUs needs about 50 of each vCPU that runs beside it. */
const KEPT = 1 << 16

/** vCPU of the guest that a host thread runs; -1 for the VMM's other threads. */
export const apicIdOf = (machine: Machine, thread: HostThread): number => {
  for (const { apicId, vcpus } of machine.vmm.groups) {
    if (vcpus.some((vcpu) => vcpu?.thread === thread)) return apicId
  }
  return -1
}

/**
 * Watches a machine's threads and finds the round trips that the meter records. The meter knows nothing of it: a round
 * trip has been recorded when the meter's list of samples has grown.
 */
export class CallWatch {
  readonly #machine: () => Machine
  readonly #found: (call: () => Call | null, ns: number) => void
  readonly #lanes = new ThreadLanes()
  readonly #apicIds = new Map<HostThread, number>()
  /** The latest two arrivals of each vCPU. */
  readonly #arrivals = new Map<number, readonly [before: Arrival | null, last: Arrival]>()
  #events: Array<Seen> = []
  #recorded = 0
  #arrivedAt = -1

  /** @param found is told of each round trip once, and may ask for it until it returns: null when it was too long ago */
  constructor(machine: () => Machine, found: (call: () => Call | null, ns: number) => void) {
    this.#machine = machine
    this.#found = found
  }

  /** Takes the next event. @returns what was kept of it */
  see(thread: HostThread, kind: TraceKind, value: number | string, ns: number): Seen {
    this.check()
    const before = this.#lanes.vmpl(thread)
    const lane = this.#lanes.see(thread, kind, value)
    const vmpl = this.#lanes.vmpl(thread) ?? before
    const { core, time, span } = thread
    const seen: Seen = { thread, core, kind, value, end: time, ns, lane, vmpl, span }
    this.#events.push(seen)
    if (this.#events.length >= 2 * KEPT) this.#events = this.#events.slice(-KEPT)
    if (kind === "arrived") {
      const apicId = this.apicId(thread)
      this.#arrivedAt = apicId
      if (span !== null) {
        const arrival = { span, begin: span.begin, ns: span.total(), end: time }
        this.#arrivals.set(apicId, [this.#arrivals.get(apicId)?.[1] ?? null, arrival])
      }
    }
    return seen
  }

  /** APIC ID of the guest vCPU that a thread runs, or -1. */
  apicId(thread: HostThread): number {
    let apicId = this.#apicIds.get(thread)
    if (apicId === undefined) {
      apicId = apicIdOf(this.#machine(), thread)
      // A thread is spawned before its vCPU joins a group.
      if (apicId >= 0) this.#apicIds.set(thread, apicId)
    }
    return apicId
  }

  /** Looks whether the last arrival has ended a round trip; to be called once more when the machine stands still. */
  check(): void {
    const { ns } = this.#machine().meter.roundTrip
    if (ns.length === this.#recorded) return
    this.#recorded = ns.length
    const last = ns[ns.length - 1]!
    const apicId = this.#arrivedAt
    this.#found(() => this.#call(apicId, last), last)
  }

  #call(apicId: number, ns: number): Call | null {
    const [request, reply] = this.#arrivals.get(apicId) ?? [null, null]
    if (request === null || reply === null || request.ns + reply.ns !== ns) return null
    const within = (seen: Seen, { span, begin, end }: Arrival): boolean =>
      seen.span === span && seen.end - seen.ns >= begin && seen.end <= end
    const events = this.#events
      .filter(({ end, ns }) => end - ns >= request.begin && end <= reply.end)
      .map((seen) => ({ seen, onPath: within(seen, request) || within(seen, reply) }))
    const involved = new Set(events.filter(({ onPath }) => onPath).map(({ seen }) => seen.thread))
    const taken = events.reduce((sum, { seen, onPath }) => (onPath ? sum + seen.ns : sum), 0)
    if (taken !== ns) return null
    return {
      begin: request.begin,
      end: reply.end,
      ns,
      events: events
        // The entry before the first exit ends at the same time as that begins: it is no part of the call.
        .filter(({ seen, onPath }) => involved.has(seen.thread) && (onPath || seen.end > request.begin))
        .sort((a, b) => a.seen.end - a.seen.ns - (b.seen.end - b.seen.ns))
    }
  }
}
