/**
 * Chrome's trace-event format: objects with a phase `ph`, of which the letters mean B and E begin and end of a slice, X a
 * whole slice, s t f the start, a step and the end of a flow, C a counter, i an instant, M a name. Times are
 * microseconds. https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
 */
export interface TraceEvent {
  readonly ph: "B" | "E" | "X" | "s" | "t" | "f" | "C" | "i" | "M"
  readonly pid: number
  readonly tid: number
  readonly name?: string
  readonly cat?: string
  readonly ts?: number
  readonly dur?: number
  readonly id?: string
  readonly bp?: "e"
  readonly s?: "t"
  readonly args?: { readonly [name: string]: unknown }
}

/** Virtual nanoseconds as the format's microseconds, exact to the nanosecond for anything below a year. */
export const micros = (ns: number): number => Number((ns / 1000).toFixed(3))

/** A row of the viewer: a process and a thread of it, in the format's words. */
export interface Track {
  readonly pid: number
  readonly tid: number
}

/** Names tracks the first time that something happens on them; both names are what a viewer shows. */
export class TrackNames {
  readonly #known = new Set<string>()
  readonly #emit: (event: TraceEvent) => void

  constructor(emit: (event: TraceEvent) => void) {
    this.#emit = emit
  }

  track(pid: number, process: string, tid: number, thread: string): Track {
    if (!this.#known.has(`${pid}`)) {
      this.#known.add(`${pid}`)
      this.#name(pid, 0, "process", process, pid)
    }
    if (!this.#known.has(`${pid} ${tid}`)) {
      this.#known.add(`${pid} ${tid}`)
      this.#name(pid, tid, "thread", thread, tid)
    }
    return { pid, tid }
  }

  #name(pid: number, tid: number, what: "process" | "thread", name: string, index: number): void {
    this.#emit({ ph: "M", pid, tid, name: `${what}_name`, args: { name } })
    this.#emit({ ph: "M", pid, tid, name: `${what}_sort_index`, args: { sort_index: index } })
  }
}
