import { describe, expect, it } from "vitest"
import { CORE_WAIT, PRIMITIVE, Span, THREAD_STATE, WAIT } from "../src/index.ts"
import {
  busy,
  CROSS,
  ended,
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

describe("placement", () => {
  it("prefers the core on which a thread last ran, then the next idle one, round the end", () => {
    const host = newHost(4)
    const log: Array<string> = []
    for (const [index, name] of ["a", "b", "c", "d"].entries()) {
      const thread = sleeper(host, name, -1, log)
      expect([thread.core, thread.affinity]).toEqual([index, -1])
    }
    const [a, b, c, d] = host.threads
    for (const core of [0, 3]) host.start(spawn(host, "hog", core, busy(host, STEP.long, STEP.long)), 0)
    // b's own core is idle; a and d find theirs taken, d looks on from the first core again; c takes its own.
    host.start(waker(host, 1, c!), 0)
    runAll(host)
    expect(log).toEqual([`c@2:${SHORT + CROSS}`])
    host.start(spawn(host, "hog", 0, busy(host, STEP.slice)), host.now)
    host.start(spawn(host, "hog", 1, busy(host, STEP.slice)), host.now)
    host.start(waker(host, 3, a!, b!, c!), host.now)
    log.length = 0
    runAll(host)
    // 0 and 1 are taken: a goes to 2. b finds 1, 2 and 3 taken, then sleeping a's 2. c is at home in 2 again.
    expect(log.map((line) => line.split(":")[0])).toEqual(["a@2", "b@2", "c@3"])
    expect(d!.state).toBe(THREAD_STATE.BLOCKED)
  })

  it("leaves a thread at home although the first core is idle too", () => {
    const host = newHost(4)
    const log: Array<string> = []
    for (const name of ["a", "b", "c"]) sleeper(host, name, -1, log)
    host.start(waker(host, 1, host.threads[2]!), 0)
    runAll(host)
    expect(log).toEqual([`c@2:${SHORT + CROSS}`])
  })

  it("keeps a pinned thread on its core although others are idle", () => {
    const host = newHost(4)
    const log: Array<string> = []
    const a = sleeper(host, "a", 1, log)
    host.start(spawn(host, "hog", 1, busy(host, STEP.long)), 0)
    host.start(waker(host, 0, a), 0)
    runAll(host)
    expect(log).toEqual([`a@1:${LONG + SAME}`])
  })

  it("takes an affinity beyond the last core round the end", () => {
    const host = newHost(3)
    expect([host.spawn("a", 4).core, host.spawn("a", 4).affinity, host.spawn("c", -1).core]).toEqual([1, 1, 2])
  })

  it("lets a thread that is not pinned take the first core that becomes free", () => {
    const host = newHost(3)
    const log: Array<string> = []
    const free = sleeper(host, "free", -1, log)
    host.start(spawn(host, "hog", 0, busy(host, STEP.long, STEP.long)), 0)
    host.start(spawn(host, "hog", 1, busy(host, STEP.long)), 0)
    host.start(waker(host, 2, free, free), 0)
    runAll(host)
    // The waker's core is the first: it ends after its second step.
    expect(log[0]).toBe(`free@2:${2 * SHORT + SAME}`)
  })

  it("starts a second thread of a core only when the first has left it", () => {
    const host = newHost(1)
    const order: Array<string> = []
    const hog = (name: string) =>
      spawn(host, name, 0, function* (self) {
        order.push(`${name}:${self.time}`)
        self.charge(STEP.long)
        yield* sync(host, self)
      })
    host.start(hog("a"), 0)
    host.start(hog("b"), 0)
    runAll(host)
    expect(order).toEqual(["a:0", `b:${LONG + SAME}`])
  })

  it("keeps the core of a thread that ends until the others have come as far", () => {
    const host = newHost(2)
    const log: Array<string> = []
    const a = sleeper(host, "a", 0, log)
    const hasty = spawn(
      host,
      "hasty",
      0,
      ended((self) => self.charge(STEP.long))
    )
    host.start(hasty, 0)
    host.start(waker(host, 1, a), 0)
    runAll(host)
    expect(log).toEqual([`a@0:${LONG + SAME}`])
    expect(hasty.state).toBe(THREAD_STATE.DONE)
  })
})

describe("a busy core", () => {
  it("serves its own queue first, then takes the thread that is not pinned from another, and charges the wait", () => {
    const host = newHost(2)
    const log: Array<string> = []
    const spans = [new Span(), new Span(), new Span()]
    const threads = [
      sleeper(host, "first", 0, log),
      sleeper(host, "second", -1, log),
      sleeper(host, "third", 0, log)
    ] as const
    // The waker goes on for longer than the hog, so that all three find no idle core and wait for core 0.
    const self = spawn(host, "waker", 1, function* (thread) {
      for (let i = 0; i < 3; i++) {
        thread.charge(STEP.short)
        yield* sync(host, thread)
        spans[i]!.start(thread.time)
        host.wake(threads[i]!, thread, spans[i]!)
      }
      for (let i = 0; i < 3; i++) {
        thread.charge(STEP.long)
        yield* sync(host, thread)
      }
    })
    host.start(spawn(host, "hog", 0, busy(host, STEP.long)), 0)
    host.start(self, 0)
    runAll(host)
    const begin = [0, 1, 2].map((i) => LONG + SAME + i * (SHORT + SAME))
    // The second waits in its home's queue, which is the waker's core.
    expect(log).toEqual([`first@0:${begin[0]}`, `third@0:${begin[1]}`, `second@0:${begin[2]}`])
    for (const [turn, i] of [0, 2, 1].entries()) {
      const span = spans[i]!
      expect(span.ns[CORE_WAIT]).toBe(begin[turn]! - SAME - (i + 1) * SHORT)
      expect(span.ns[PRIMITIVE.thread_handoff_same_core]).toBe(SAME)
      expect(span.total()).toBe(begin[turn]! + SHORT - (i + 1) * SHORT)
    }
  })

  it("charges a path that joins a queued thread only from when it joined", () => {
    const host = newHost(2)
    const log: Array<string> = []
    const a = sleeper(host, "a", 0, log)
    const span = new Span()
    const self = spawn(host, "waker", 1, function* (thread) {
      host.wake(a, thread, null)
      for (let i = 0; i < 5; i++) thread.charge(STEP.short)
      yield* sync(host, thread)
      span.start(thread.time)
      thread.span = span
      host.wake(a, thread, span)
    })
    host.start(spawn(host, "hog", 0, busy(host, STEP.long)), 0)
    host.start(self, 0)
    runAll(host)
    expect(log[0]).toBe(`a@0:${LONG + SAME}`)
    expect(span.ns[CORE_WAIT]).toBe(LONG - 5 * SHORT)
    expect(a.time).toBe(span.begin + span.total())
  })

  it("is shared by time slices: who has used his up goes to the end of the queue", () => {
    const host = newHost(1)
    const log: Array<string> = []
    const worker = (name: string) =>
      spawn(host, name, -1, function* (self) {
        for (let i = 0; i < 3; i++) {
          log.push(`${name}:${self.time}`)
          self.charge(STEP.slice)
          yield* sync(host, self)
          if (host.needResched(self)) yield WAIT.RESCHEDULE
        }
      })
    const a = worker("a")
    const b = worker("b")
    const span = new Span()
    a.span = span
    host.start(a, 0)
    host.start(b, 0)
    runAll(host)
    const at = (slices: number, switches: number) => slices * SLICE + switches * SAME
    expect(log).toEqual([
      `a:${at(0, 0)}`,
      `b:${at(1, 1)}`,
      `a:${at(2, 2)}`,
      `b:${at(3, 3)}`,
      `a:${at(4, 4)}`,
      `b:${at(5, 5)}`
    ])
    expect(span.ns[CORE_WAIT]).toBe(3 * (SLICE + SAME))
    expect(span.total()).toBe(a.time)
  })

  it("goes to a pinned thread that has waited when one that is not pinned gives it away", () => {
    const host = newHost(1)
    const order: Array<string> = []
    const worker = (name: string, affinity: number) =>
      spawn(host, name, affinity, function* (self) {
        for (let i = 0; i < 2; i++) {
          order.push(name)
          self.charge(STEP.slice)
          yield* sync(host, self)
          if (host.needResched(self)) yield WAIT.RESCHEDULE
        }
      })
    host.start(worker("free", -1), 0)
    host.start(worker("pinned", 0), SHORT)
    runAll(host)
    expect(order).toEqual(["free", "pinned", "free", "pinned"])
  })

  it("gives a full slice to a thread that came late", () => {
    const host = newHost(1)
    const answers: Array<boolean> = []
    const a = spawn(host, "a", 0, function* (self) {
      self.charge(STEP.long)
      answers.push(host.needResched(self))
      self.charge(STEP.slice)
      answers.push(host.needResched(self))
      yield* sync(host, self)
    })
    host.start(a, 5 * SLICE)
    host.start(spawn(host, "b", 0, busy(host, STEP.short)), 5 * SLICE)
    runAll(host)
    expect(answers).toEqual([false, true])
  })

  it("is left by a thread that is not pinned for an idle one, when a pinned thread wants it", () => {
    const host = newHost(2)
    const log: Array<string> = []
    const pinned = sleeper(host, "pinned", 0, log)
    const free = spawn(host, "free", -1, function* (self) {
      host.wake(pinned, self, null)
      self.charge(STEP.slice)
      yield* sync(host, self)
      yield WAIT.RESCHEDULE
      log.push(`free@${self.core}:${self.time}`)
    })
    host.start(spawn(host, "hog", 1, busy(host, STEP.long)), 0)
    host.start(free, 0)
    runAll(host)
    expect(log).toEqual([`pinned@0:${SLICE + SAME}`, `free@1:${SLICE + CROSS + MIGRATION}`])
  })

  it("is nobody else's business before 3 ms are over, or when nobody waits", () => {
    const host = newHost(2)
    const answers: Array<boolean> = []
    const a = spawn(host, "a", 0, function* (self) {
      self.charge(STEP.slice)
      answers.push(host.needResched(self))
      yield* sync(host, self)
      host.wake(b, self, null)
      // Its next slice has just begun.
      answers.push(host.needResched(self))
      self.charge(STEP.slice)
      answers.push(host.needResched(self))
      yield WAIT.RESCHEDULE
      self.charge(STEP.long)
      answers.push(host.needResched(self))
    })
    const b = spawn(host, "b", 0, busy(host, STEP.long))
    host.start(a, 0)
    runAll(host)
    expect(answers).toEqual([false, false, true, false])
  })
})
