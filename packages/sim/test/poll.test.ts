import { describe, expect, it } from "vitest"
import { ACCOUNT, CORE_WAIT, cpuTime, PRIMITIVE, Span, WAIT } from "../src/index.ts"
import { busy, CROSS, LONG, newHost, POLL_WAKE, runAll, SAME, SHORT, STEP, spawn, sync, waker } from "./support.ts"

const WINDOW = 1_000

/** A thread that polls, then sleeps if no wake came, and notes what it met. */
const poller = (host: ReturnType<typeof newHost>, affinity: number, log: Array<string>, window = WINDOW) =>
  spawn(host, "poller", affinity, function* (self) {
    self.pollNs = window
    yield WAIT.POLL
    log.push(`${self.pollHit ? "hit" : "miss"}:${self.time}`)
    if (self.pollHit) return
    yield WAIT.BLOCK
    log.push(`woken:${self.time}`)
  })

describe("polling for a wake", () => {
  it("sees one within the window at once, without a hand-off, and counts as time on the core", () => {
    const host = newHost(2)
    const log: Array<string> = []
    const span = new Span()
    const thread = poller(host, 0, log)
    const self = spawn(host, "waker", 1, function* (by) {
      by.charge(STEP.short)
      yield* sync(host, by)
      span.start(by.time)
      by.span = span
      host.wake(thread, by, span)
      expect([by.span, thread.span]).toEqual([null, span])
    })
    host.start(thread, 0)
    host.start(self, 0)
    runAll(host)
    expect(log).toEqual([`hit:${SHORT + POLL_WAKE}`])
    expect([span.total(), span.ns[PRIMITIVE.halt_poll_wake]]).toEqual([POLL_WAKE, POLL_WAKE])
    expect(thread.account[ACCOUNT.POLL]).toBe(SHORT)
    expect(cpuTime(thread.account)).toBe(SHORT + POLL_WAKE)
    expect(host.cores[0]!.current).toBe(null)
  })

  it("ends with its window: a later wake costs the hand-off", () => {
    const host = newHost(2)
    const log: Array<string> = []
    const thread = poller(host, 0, log)
    host.start(thread, 0)
    const self = spawn(host, "waker", 1, function* (by) {
      by.charge(STEP.long)
      yield* sync(host, by)
      host.wake(thread, by, null)
    })
    host.start(self, 0)
    runAll(host)
    expect(log).toEqual([`miss:${WINDOW}`, `woken:${LONG + CROSS}`])
    expect(thread.account[ACCOUNT.POLL]).toBe(WINDOW)
  })

  it("is met by an interrupt too", () => {
    const host = newHost(1)
    const log: Array<string> = []
    const thread = poller(host, 0, log)
    host.start(thread, 0)
    host.setTimer(300, (time) => host.wakeAt(thread, time))
    runAll(host)
    expect(log).toEqual([`hit:${300 + POLL_WAKE}`])
  })

  it("stops for a thread that could use the core", () => {
    const host = newHost(2)
    const log: Array<string> = []
    const thread = poller(host, 0, log)
    const rival = spawn(host, "rival", 0, function* (self) {
      log.push(`rival:${self.time}`)
      yield* sync(host, self)
    })
    host.start(thread, 0)
    host.start(waker(host, 1, rival), 0)
    runAll(host)
    expect(log).toEqual([`miss:${SHORT}`, `rival:${SHORT + SAME}`])
    expect([thread.account[ACCOUNT.POLL], rival.account[ACCOUNT.STEAL]]).toEqual([SHORT, 0])
  })

  it("does not begin while one waits, nor without a window, nor after a wake that came before", () => {
    const host = newHost(1)
    const log: Array<string> = []
    host.start(poller(host, 0, log), 0)
    host.start(spawn(host, "rival", 0, busy(host, STEP.short)), 0)
    runAll(host)
    const other = newHost(1)
    other.start(poller(other, 0, log, 0), 0)
    runAll(other)
    const third = newHost(2)
    const late = spawn(third, "late", 0, function* (self) {
      self.charge(STEP.long)
      yield* sync(third, self)
      self.pollNs = WINDOW
      yield WAIT.POLL
      log.push(`${self.pollHit}:${self.time}`)
    })
    third.start(late, 0)
    third.start(waker(third, 1, late), 0)
    runAll(third)
    expect(log).toEqual(["miss:0", "miss:0", `true:${LONG}`])
  })

  it("charges a path that meets a poller whose clock is ahead with the wait", () => {
    const host = newHost(2)
    const span = new Span()
    const thread = spawn(host, "poller", 0, function* (self) {
      self.charge(STEP.long)
      self.pollNs = WINDOW
      yield WAIT.POLL
    })
    const self = spawn(host, "waker", 1, function* (by) {
      by.charge(STEP.short)
      yield* sync(host, by)
      span.start(by.time)
      host.wake(thread, by, span)
    })
    host.start(thread, 0)
    host.start(self, 0)
    runAll(host)
    expect(span.ns[CORE_WAIT]).toBe(LONG - SHORT)
    expect(span.begin + span.total()).toBe(thread.time)
    expect(thread.account[ACCOUNT.POLL]).toBe(0)
  })
})
