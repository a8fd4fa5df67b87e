import { describe, expect, it } from "vitest"
import { ACCOUNT, DEEP_IDLE_AFTER_NS, type Host, PRIMITIVE, Span, sumAccounts, WAIT } from "../src/index.ts"
import {
  busy,
  CROSS,
  DEEP,
  LONG,
  MIGRATION,
  newHost,
  runAll,
  SAME,
  SHORT,
  SLICE,
  STEP,
  sleeper,
  spawn,
  sync,
  waker
} from "./support.ts"

/** A thread that works in short steps for as long as it is told, giving its core away when it must. */
const worker = (host: Host, name: string, affinity: number, steps: number, log: Array<string> | null = null) =>
  spawn(host, name, affinity, function* (self) {
    for (let i = 0; i < steps; i++) {
      log?.push(`${name}@${self.core}:${self.time}`)
      self.charge(STEP.long)
      yield* sync(host, self)
      while (host.needResched(self)) yield WAIT.RESCHEDULE
    }
  })

describe("a core's idle state", () => {
  const wokenAfter = (idleNs: number, cStates: "shallow" | "deep"): string => {
    const host = newHost(2, { cStates })
    const log: Array<string> = []
    const thread = sleeper(host, "a", 0, log)
    host.setTimer(idleNs, (time) => host.wakeAt(thread, time))
    runAll(host)
    return log[0]!
  }

  it.each([
    ["shallow", DEEP_IDLE_AFTER_NS, 0],
    ["deep", DEEP_IDLE_AFTER_NS - 1, 0],
    ["deep", DEEP_IDLE_AFTER_NS, DEEP]
  ] as const)("with %s states and %d ns of idling adds %d ns to a wake", (cStates, idle, added) => {
    expect(wokenAfter(idle, cStates)).toBe(`a@0:${idle + added + SAME}`)
  })

  it("counts from when the last thread left, and not for a core that was taken", () => {
    const host = newHost(2, { cStates: "deep" })
    const log: Array<string> = []
    const a = sleeper(host, "a", 0, log)
    for (const at of [1_000, 90_000, 195_000]) host.setTimer(at, (time) => host.wakeAt(a, time))
    runAll(host)
    expect(log).toEqual([`a@0:${1_000 + SAME}`, `a@0:${90_000 + SAME}`, `a@0:${195_000 + DEEP + SAME}`])
  })
})

describe("a thread that wakes on a busy core", () => {
  it("takes it at once when it has had less than its share, and waits out the slice when it has not", () => {
    const host = newHost(2)
    const log: Array<string> = []
    const hog = worker(host, "hog", 0, 1_500)
    const a = sleeper(host, "a", 0, log)
    host.start(hog, 0)
    // The first time it has no lag: the hog, alone for 1 ms, keeps the rest of its slice.
    host.setTimer(1_000_000, (time) => host.wakeAt(a, time))
    host.setTimer(5_000_000, (time) => host.wakeAt(a, time))
    runAll(host)
    expect(log[0]).toBe(`a@0:${SLICE + SAME}`)
    // Then the hog has had almost all: it goes at its next step.
    const second = Number(log[1]!.split(":")[1])
    expect(second).toBeGreaterThanOrEqual(5_000_000)
    expect(second).toBeLessThanOrEqual(5_000_000 + LONG + SAME)
    expect(hog.account[ACCOUNT.STEAL]).toBe(2 * (SHORT + SAME))
  })

  it("is not served for ever before the others: two that sleep a moment and one that does not share alike", () => {
    const host = newHost(1)
    const until = 300_000_000
    const threads = ["a", "b", "c"].map((name) =>
      spawn(host, name, 0, function* (self) {
        while (self.time < until) {
          self.charge(STEP.long)
          yield* sync(host, self)
          if (name !== "c" && (self.time / LONG) % 50 < 1) {
            host.setTimer(self.time + 1, (time) => host.wakeAt(self, time))
            yield WAIT.BLOCK
          }
          while (host.needResched(self)) yield WAIT.RESCHEDULE
        }
      })
    )
    for (const thread of threads) host.start(thread, 0)
    while (host.now < until && host.stepMany(1));
    for (const thread of threads) {
      expect(Math.abs(thread.account[ACCOUNT.KERNEL]! - until / 3)).toBeLessThan(0.05 * until)
    }
  })
})

describe("threads that are not pinned", () => {
  it("pay for going on on another core, but not for beginning there", () => {
    const host = newHost(2)
    const log: Array<string> = []
    const a = sleeper(host, "a", -1, log)
    host.start(spawn(host, "hog", 0, busy(host, STEP.slice)), 0)
    host.setTimer(10, (time) => host.wakeAt(a, time))
    // The second hog takes the core on which a ran.
    const hog = spawn(host, "hog", 1, busy(host, STEP.long))
    host.setTimer(1_000, (time) => host.start(hog, time))
    const last = sleeper(host, "last", 1, [])
    expect(last.core).toBe(1)
    host.setTimer(SLICE + 50_000, () => {})
    runAll(host)
    expect(log).toEqual([`a@1:${10 + CROSS}`])
    host.start(spawn(host, "hog", 1, busy(host, STEP.long)), host.now)
    host.start(waker(host, 1, a), host.now)
    runAll(host)
    expect(log[1]!.slice(0, 4)).toBe("a@0:")
    expect(a.account[ACCOUNT.KERNEL]).toBe(CROSS + SHORT + (CROSS + MIGRATION) + SHORT)
  })

  it("are taken by a core that has nothing to do from the longest queue, pinned ones left where they are", () => {
    const host = newHost(3)
    const log: Array<string> = []
    host.start(spawn(host, "hog", 0, busy(host, STEP.slice)), 0)
    host.start(spawn(host, "hog", 1, busy(host, STEP.slice)), 0)
    host.start(spawn(host, "brief", 2, busy(host, STEP.short)), 0)
    const pinned = worker(host, "pinned", 0, 1, log)
    const free = host.spawn("free", -1)
    free.core = 0
    free.program = (function* () {
      log.push(`free@${free.core}:${free.time}`)
      yield* []
    })()
    host.start(pinned, 0)
    host.start(free, 0)
    runAll(host)
    expect(log).toEqual([`free@2:${SHORT + SAME}`, `pinned@0:${SLICE + SAME}`])
    expect([free.account[ACCOUNT.STEAL], pinned.account[ACCOUNT.STEAL]]).toEqual([SHORT, SLICE])
  })
})

describe("more runnable threads than cores", () => {
  it.each([
    [1, 2],
    [2, 3],
    [3, 7],
    [4, 64]
  ])("%d cores give %d threads the same time, whichever queue they began in", (cores, count) => {
    const host = newHost(cores)
    const until = count * 60_000_000
    const threads = Array.from({ length: count }, (_, i) => worker(host, `t${i}`, -1, Infinity))
    for (const thread of threads) host.start(thread, 0)
    while (host.now < until && host.stepMany(1));
    const share = (until * cores) / count
    for (const { account } of threads) expect(Math.abs(account[ACCOUNT.KERNEL]! / share - 1)).toBeLessThan(0.15)
    // Nothing of the cores' time is lost.
    expect(sumAccounts(threads)[ACCOUNT.KERNEL]! / (until * cores)).toBeGreaterThan(0.99)
  })
})

describe("accounts", () => {
  it("tell the guest's steps from the kernel's and the VMM's", () => {
    const host = newHost(1)
    const thread = spawn(host, "a", 0, function* (self) {
      self.passInGuest(self.time + 40)
      self.charge(STEP.short)
      yield* []
    })
    const span = new Span()
    thread.span = span
    host.start(thread, 0)
    runAll(host)
    expect([...thread.account]).toEqual([40, SHORT, 0, 0, 0])
    expect(span.ns[PRIMITIVE.ioctl]).toBe(SHORT)
  })
})
