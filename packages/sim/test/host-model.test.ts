import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  ACCOUNT,
  cpuTime,
  type Host,
  type HostProgram,
  type HostThread,
  Span,
  THREAD_STATE,
  WAIT
} from "../src/index.ts"
import { newHost, STEP, spawn, sync } from "./support.ts"

/** What one thread does next. `path`: with a wake, the critical path goes along; with a block, it ends before. */
type Action =
  | { readonly do: "charge"; readonly step: number }
  | { readonly do: "wake"; readonly target: number; readonly path: boolean; readonly synced: boolean }
  | { readonly do: "begin" | "block" | "sync" | "slice" | "poll" }

interface Plan {
  readonly cores: number
  readonly threads: ReadonlyArray<{
    readonly affinity: number
    readonly start: number
    readonly actions: ReadonlyArray<Action>
  }>
}

const action = fc.oneof(
  fc.record({ do: fc.constant("charge"), step: fc.constantFrom(STEP.short, STEP.short, STEP.long, STEP.slice) }),
  fc.record({ do: fc.constant("wake"), target: fc.nat(7), path: fc.boolean(), synced: fc.boolean() }),
  fc.record({ do: fc.constantFrom("begin", "block", "sync", "slice", "poll") })
) as fc.Arbitrary<Action>

const plan: fc.Arbitrary<Plan> = fc.record({
  cores: fc.integer({ min: 1, max: 4 }),
  threads: fc.array(
    fc.record({
      affinity: fc.integer({ min: -1, max: 3 }),
      // Below 0 the thread sleeps until somebody wakes it.
      start: fc.integer({ min: -300, max: 500 }),
      actions: fc.array(action, { maxLength: 25, size: "max" })
    }),
    { minLength: 1, maxLength: 8, size: "max" }
  )
})

/** A stretch of time that one thread spent on one core. */
interface Stretch {
  readonly thread: string
  readonly core: number
  readonly from: number
  readonly to: number
}

/** Runs a plan and checks at each step what must hold then. @returns all that can be seen of the run */
class Run {
  readonly host: Host
  readonly stretches: Array<Stretch> = []
  readonly clocks: Array<string> = []
  readonly paths = { checked: 0, handedOver: 0 }
  readonly polls = { hit: 0, missed: 0 }
  readonly #threads: Array<HostThread> = []

  constructor({ cores, threads }: Plan) {
    this.host = newHost(cores)
    threads.forEach(({ affinity, actions }, index) => {
      this.#threads.push(spawn(this.host, `t${index}`, affinity, (self) => this.#program(self, affinity, actions)))
    })
    threads.forEach(({ start }, index) => {
      if (start >= 0) this.host.start(this.#threads[index]!, start)
    })
    while (this.host.stepMany(1)) this.#expectNoCoreIdleWhileSomebodyWaits()
    this.#expectTimesToAddUp()
  }

  *#program(self: HostThread, affinity: number, actions: ReadonlyArray<Action>): HostProgram {
    let clock = 0
    for (const step of actions) {
      this.#expectRunning(self, affinity, clock)
      clock = self.time
      yield* this.#act(self, step)
    }
    this.#expectRunning(self, affinity, clock)
    // A path ends with its thread: an ended thread is woken in vain.
    self.span = null
  }

  *#act(self: HostThread, step: Action): HostProgram {
    const { host } = this
    switch (step.do) {
      case "charge": {
        const from = self.time
        self.charge(step.step)
        this.stretches.push({ thread: self.name, core: self.core, from, to: self.time })
        return
      }
      case "begin":
        self.span = new Span()
        self.span.start(self.time)
        return
      case "wake": {
        if (step.synced) yield* sync(host, self)
        const target = this.#threads[step.target % this.#threads.length]!
        if (target === self || target.state === THREAD_STATE.DONE) return
        const span = step.path ? self.span : null
        host.wake(target, self, span)
        if (span === null) return
        this.paths.handedOver++
        expect(self.span).toBe(null)
        expect(target.span).toBe(span)
        return
      }
      case "block":
        self.span = null
        yield WAIT.BLOCK
        return
      case "sync":
        yield* sync(host, self)
        return
      case "poll":
        self.span = null
        self.pollNs = 5_000
        yield WAIT.POLL
        if (self.pollHit) this.polls.hit++
        else this.polls.missed++
        return
      case "slice":
        yield* sync(host, self)
        if (host.needResched(self)) yield WAIT.RESCHEDULE
    }
  }

  #expectRunning(self: HostThread, affinity: number, clock: number): void {
    const { cores } = this.host
    expect(cores[self.core]!.current).toBe(self)
    expect(cores.filter(({ current }) => current === self)).toHaveLength(1)
    expect(self.state).toBe(THREAD_STATE.RUNNING)
    expect(self.time).toBeGreaterThanOrEqual(clock)
    if (affinity >= 0) expect(self.core).toBe(affinity % cores.length)
    this.clocks.push(`${self.name}@${self.core}:${self.time}`)
    const { span } = self
    if (span === null) return
    this.paths.checked++
    expect(span.begin + span.total()).toBe(self.time)
  }

  #expectNoCoreIdleWhileSomebodyWaits(): void {
    const { threads, cores } = this.host
    for (const thread of threads) {
      if (thread.state !== THREAD_STATE.QUEUED) continue
      const idle = cores.filter(({ current }) => current === null)
      if (thread.affinity < 0) expect(idle).toEqual([])
      else expect(cores[thread.affinity]!.current).not.toBe(null)
    }
  }

  /** Nobody still waits, and what a thread did not spend on a core or waiting for one it slept. */
  #expectTimesToAddUp(): void {
    for (const { name, state, account, time } of this.host.threads) {
      expect([THREAD_STATE.DONE, THREAD_STATE.BLOCKED]).toContain(state)
      const worked = this.stretches.reduce((sum, { thread, from, to }) => sum + (thread === name ? to - from : 0), 0)
      expect(cpuTime(account) - account[ACCOUNT.POLL]!).toBeGreaterThanOrEqual(worked)
      expect(cpuTime(account) + account[ACCOUNT.STEAL]!).toBeLessThanOrEqual(time)
    }
  }

  /** No core ever had two threads at once. */
  expectOneThreadPerCore(): void {
    for (const { id } of this.host.cores) {
      const here = this.stretches
        .filter(({ core, from, to }) => core === id && to > from)
        .sort((a, b) => a.from - b.from)
      for (let i = 1; i < here.length; i++) expect(here[i]!.from).toBeGreaterThanOrEqual(here[i - 1]!.to)
    }
  }
}

describe("random programs on random hosts", () => {
  it("never share a core, never go back in time, and account for every nanosecond of every path", () => {
    const reached = { checked: 0, handedOver: 0, moved: 0, hit: 0, missed: 0 }
    fc.assert(
      fc.property(plan, (choice) => {
        const run = new Run(choice)
        run.expectOneThreadPerCore()
        reached.checked += run.paths.checked
        reached.handedOver += run.paths.handedOver
        reached.hit += run.polls.hit
        reached.missed += run.polls.missed
        for (const { id, core } of run.host.threads) if (core !== id % choice.cores) reached.moved++
      }),
      { seed: 20260823, numRuns: 500 }
    )
    // The programs did get to what they are meant to show.
    expect(reached.checked).toBeGreaterThan(1000)
    expect(reached.handedOver).toBeGreaterThan(300)
    expect(reached.moved).toBeGreaterThan(300)
    expect(reached.hit).toBeGreaterThan(100)
    expect(reached.missed).toBeGreaterThan(100)
  })

  it("run twice give the same events and the same clocks", () => {
    fc.assert(
      fc.property(plan, (choice) => {
        const [first, second] = [new Run(choice), new Run(choice)]
        expect(second.clocks).toEqual(first.clocks)
        expect([second.host.events, second.host.now]).toEqual([first.host.events, first.host.now])
        expect(second.host.threads.map(({ time, core, state }) => [time, core, state])).toEqual(
          first.host.threads.map(({ time, core, state }) => [time, core, state])
        )
      }),
      { seed: 20260824, numRuns: 100 }
    )
  })

  it("give the same whether the scheduler runs one event at a time or all at once", () => {
    const clocksOf = (chunk: number): ReadonlyArray<number> => {
      const host = newHost(2)
      const woken = spawn(host, "woken", -1, function* (self) {
        for (;;) {
          self.charge(STEP.long)
          yield* sync(host, self)
          yield WAIT.BLOCK
        }
      })
      for (let i = 0; i < 3; i++) {
        const thread = spawn(host, `t${i}`, i - 1, function* (self) {
          for (let n = 0; n < 20; n++) {
            self.charge(n % 3 === i ? STEP.long : STEP.short)
            yield* sync(host, self)
            host.wake(woken, self, null)
          }
        })
        host.start(thread, i)
      }
      while (host.stepMany(chunk));
      return [...host.threads.map(({ time }) => time), host.events]
    }
    expect(clocksOf(1000)).toEqual(clocksOf(1))
  })
})
