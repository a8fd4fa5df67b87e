import { describe, expect, it } from "vitest"
import { micros, type TraceEvent } from "../src/observe/ChromeTrace.ts"
import { type TracedStrategy, traceStrategy } from "../src/observe/TraceOut.ts"
import { Scenario } from "../src/Scenario.ts"
import { CASES, inputOf } from "./observed.ts"

interface Traced {
  readonly events: ReadonlyArray<TraceEvent>
  readonly traced: TracedStrategy
  /** Length of the longest piece, and of all. */
  readonly longest: number
  readonly bytes: number
}

const traceOf = (work: Generator<string, TracedStrategy, void>): Traced => {
  const texts: Array<string> = []
  let step = work.next()
  for (; step.done !== true; step = work.next()) texts.push(step.value)
  const lines = texts.join("").trimEnd().split("\n")
  const events = lines.map((line): TraceEvent => JSON.parse(line.replace(/,$/, "")))
  const lengths = texts.map(({ length }) => length)
  return { events, traced: step.value, longest: Math.max(...lengths), bytes: lengths.reduce((sum, n) => sum + n, 0) }
}

const trackOf = ({ pid, tid }: TraceEvent): string => `${pid}/${tid}`

/** In whole ns: the format's microseconds are exact to three decimals, their sums in floating point are not. */
const ns = (micro: number | undefined): number => Math.round((micro ?? Number.NaN) * 1000)

/** Slices of one track in the order of the file: every one of them has to lie inside the one that is open. */
const brokenSlices = (events: ReadonlyArray<TraceEvent>): ReadonlyArray<string> => {
  const broken: Array<string> = []
  const open: Array<{ name: string; begin: number }> = []
  let last = 0
  for (const event of events) {
    if (event.ph !== "B" && event.ph !== "E" && event.ph !== "X") continue
    const at = ns(event.ts)
    const name = event.name ?? "end"
    if (at < last) broken.push(`${name} at ${at} after ${last}`)
    last = event.ph === "X" ? at + ns(event.dur) : at
    if (event.ph === "B") open.push({ name, begin: at })
    else if (event.ph === "E" && open.pop() === undefined) broken.push(`nothing to end at ${at}`)
    else if (event.ph === "X" && !(ns(event.dur) > 0)) broken.push(`${name} without a duration`)
  }
  return [...broken, ...open.map(({ name }) => `${name} never ends`)]
}

/** Whether a slice of the track holds this moment: an arrow has to begin and end on one. */
const isOnSlice = (slices: ReadonlyArray<TraceEvent>, at: number): boolean =>
  slices.some(({ ph, ts, dur }) => ph === "X" && ns(ts) <= at && at < ns(ts) + ns(dur))

describe.each(CASES)("the trace of %s", (_, strategy, scenario) => {
  const { events, traced } = traceOf(traceStrategy(inputOf(strategy, scenario), 2, 10))
  const tracks = Map.groupBy(events, trackOf)

  it("nests the slices of every track, in the order of time, and ends them all", () => {
    for (const [track, own] of tracks) expect([track, ...brokenSlices(own)]).toEqual([track])
  })

  it("names every process and every track that has slices", () => {
    const named = (kind: string) => events.filter(({ name }) => name === kind).map(trackOf)
    const threads = new Set(named("thread_name"))
    const processes = new Set(named("process_name").map((track) => track.split("/")[0]))
    for (const event of events) {
      if (event.ph === "M" || event.ph === "C") continue
      expect(threads).toContain(trackOf(event))
      expect(processes).toContain(String(event.pid))
    }
    const names = events.filter(({ name }) => name === "process_name").map(({ args }) => String(args?.name))
    for (const part of ["cores", "threads", "guest vCPU "]) expect(names.join()).toContain(part)
  })

  it("lets no core hold two threads at once", () => {
    const cores = [...tracks.values()].filter((own) => own.some(({ args }) => /^core \d/.test(String(args?.name))))
    expect(cores.length).toBeGreaterThan(0)
    for (const own of cores) {
      let depth = 0
      for (const { ph } of own) {
        if (ph === "B") depth++
        if (ph === "E") depth--
        expect(depth).toBeLessThanOrEqual(1)
      }
    }
  })

  it("has one flow for each call, each point of it on a slice", () => {
    const flows = Map.groupBy(
      events.filter(({ ph }) => ph === "s" || ph === "t" || ph === "f"),
      ({ id }) => id
    )
    expect(flows.size).toBe(10)
    expect(traced).toMatchObject({ calls: 10, planned: scenario.vcpus * scenario.calls })
    for (const flow of flows.values()) {
      expect(flow.map(({ ph }) => ph).join("")).toMatch(/^st*f$/)
      for (const [i, point] of flow.entries()) {
        expect(point.bp).toBe("e")
        expect(ns(point.ts)).toBeGreaterThanOrEqual(i === 0 ? 0 : ns(flow[i - 1]!.ts))
        expect(isOnSlice(tracks.get(trackOf(point))!, ns(point.ts))).toBe(true)
      }
    }
  })

  it("counts runnable threads, and the exits of each guest vCPU one by one", () => {
    const counters = (name: string) => events.filter((event) => event.ph === "C" && event.name === name)
    const runnable = counters("runnable threads")
    expect(runnable.length).toBeGreaterThan(0)
    for (const [i, { ts, args }] of runnable.entries()) {
      expect(args!.threads).toBeGreaterThan(0)
      if (i > 0) expect(ns(ts)).toBeGreaterThanOrEqual(ns(runnable[i - 1]!.ts))
    }
    const exits = Map.groupBy(counters("VMEXITs"), ({ pid }) => pid)
    expect(exits.size).toBeGreaterThan(0)
    for (const [pid, own] of exits) {
      expect(own.map(({ args }) => args!.count)).toEqual(own.map((_, i) => i + 1))
      const ends = events.filter((event) => event.ph === "E" && event.pid === pid && event.args?.exit !== undefined)
      expect(own.map(({ ts }) => ts)).toEqual(ends.map(({ ts }) => ts))
      expect(own.every(({ ts }, i) => i === 0 || ns(ts) >= ns(own[i - 1]!.ts))).toBe(true)
    }
  })
})

it("gives its text in pieces of a bounded size, however many calls are traced", () => {
  const [, strategy, scenario] = CASES[0]!
  const long = new Scenario({ ...scenario, calls: 400 })
  const { longest, bytes, traced } = traceOf(traceStrategy(inputOf(strategy, long), 0, 1100))
  expect(traced.calls).toBe(1100)
  expect(bytes).toBeGreaterThan(4 * longest)
})

it("writes virtual nanoseconds as exact microseconds", () => {
  for (const time of [0, 1, 999, 1001, 52_339_955, 123_456_789_012_345]) {
    expect(JSON.stringify(micros(time))).toBe(
      String(Number(`${Math.floor(time / 1000)}.${String(time % 1000).padStart(3, "0")}`))
    )
  }
})
