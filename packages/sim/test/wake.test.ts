import { describe, expect, it } from "vitest"
import { CORE_WAIT, COUNTER, PRIMITIVE, Span, THREAD_STATE, WAIT } from "../src/index.ts"
import { busy, CROSS, LONG, newHost, runAll, SAME, SHORT, STEP, sleeper, spawn, sync, waker } from "./support.ts"

describe("a wake", () => {
  it("costs the price across cores when the sleeper's core is not the waker's", () => {
    const host = newHost(2)
    const log: Array<string> = []
    host.start(waker(host, 0, sleeper(host, "a", 1, log)), 0)
    runAll(host)
    expect(log).toEqual([`a@1:${SHORT + CROSS}`])
  })

  it("of a thread pinned to the waker's own core waits for the waker and costs the price on one core", () => {
    const host = newHost(2)
    const log: Array<string> = []
    const a = sleeper(host, "a", 0, log)
    const self = spawn(host, "waker", 0, function* (thread) {
      host.wake(a, thread, null)
      thread.charge(STEP.long)
      yield* sync(host, thread)
    })
    host.start(self, 0)
    runAll(host)
    expect(log).toEqual([`a@0:${LONG + SAME}`])
  })

  it("moves the critical path and charges the hand-off to it", () => {
    const host = newHost(2)
    const span = new Span()
    const a = spawn(host, "a", 1, busy(host, STEP.short))
    const b = spawn(host, "b", 0, function* (self) {
      span.start(self.time)
      self.span = span
      self.charge(STEP.short)
      host.wake(a, self, span)
      self.charge(STEP.long)
      yield* sync(host, self)
    })
    host.start(b, 0)
    runAll(host)
    expect([a.span, b.span]).toEqual([span, null])
    expect(span.total()).toBe(SHORT + CROSS + SHORT)
    expect(span.ns[PRIMITIVE.thread_handoff_cross_core]).toBe(CROSS)
    expect([span.counters[COUNTER.THREAD_HAND_OFFS], span.count[CORE_WAIT]]).toEqual([1, 0])
  })

  it("without a span leaves the waker's path with the waker", () => {
    const host = newHost(2)
    const span = new Span()
    const a = spawn(host, "a", 1, busy(host, STEP.short))
    const b = spawn(host, "b", 0, function* (self) {
      span.start(self.time)
      self.span = span
      host.wake(a, self, null)
      self.charge(STEP.long)
      yield* sync(host, self)
    })
    host.start(b, 0)
    runAll(host)
    expect([a.span, b.span, span.total()]).toEqual([null, span, LONG])
    expect(span.counters[COUNTER.THREAD_HAND_OFFS]).toBe(0)
  })

  it("that meets a thread not yet asleep lets it go on without a hand-off, once", () => {
    const host = newHost(2)
    const span = new Span()
    const times: Array<number> = []
    const a = spawn(host, "a", 0, function* (self) {
      for (let i = 0; i < 3; i++) {
        self.charge(STEP.long)
        yield* sync(host, self)
        times.push(self.time)
        yield WAIT.BLOCK
      }
    })
    const b = spawn(host, "b", 1, function* (self) {
      self.charge(STEP.short)
      yield* sync(host, self)
      span.start(self.time)
      host.wake(a, self, span)
    })
    host.start(a, 0)
    host.start(b, 0)
    runAll(host)
    // The second sleep is not woken: the early wake counts for one sleep only.
    expect(times).toEqual([LONG, 2 * LONG])
    expect(a.state).toBe(THREAD_STATE.BLOCKED)
    // The path waited for the busy thread from the wake to that thread's clock, then took its step.
    expect(span.ns[CORE_WAIT]).toBe(LONG - SHORT)
    expect(span.total()).toBe(2 * LONG - SHORT)
  })

  it("that meets a thread asleep in advance of its clock does the same", () => {
    const host = newHost(2)
    const times: Array<number> = []
    const a = spawn(host, "a", 0, function* (self) {
      for (let i = 0; i < 2; i++) {
        times.push(self.time)
        self.charge(STEP.long)
        yield WAIT.BLOCK
      }
    })
    const b = waker(host, 1, a)
    host.start(a, 0)
    host.start(b, 0)
    runAll(host)
    expect(times).toEqual([0, LONG])
  })

  it("is what a thread that sleeps in advance of its clock waits for", () => {
    const host = newHost(2)
    const times: Array<number> = []
    const a = spawn(host, "a", 0, function* (self) {
      for (;;) {
        times.push(self.time)
        self.charge(STEP.short)
        yield WAIT.BLOCK
      }
    })
    const b = spawn(host, "b", 1, busy(host, STEP.long, STEP.long))
    host.start(a, 0)
    host.start(b, 50)
    runAll(host)
    expect([times, a.state]).toEqual([[0], THREAD_STATE.BLOCKED])
  })
})
