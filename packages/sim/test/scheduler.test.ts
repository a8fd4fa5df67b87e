import { describe, expect, it } from "vitest"
import { type HostThread, WAIT } from "../src/index.ts"
import { busy, ended, LONG, newHost, runAll, STEP, spawn } from "./support.ts"

describe("the scheduler", () => {
  it("stops when nothing is left, counts its events and keeps the latest time", () => {
    const host = newHost(1)
    host.start(spawn(host, "a", -1, busy(host, STEP.short)), 40)
    expect(host.stepMany(1)).toBe(true)
    expect(host.stepMany(1)).toBe(false)
    expect([host.events, host.now]).toEqual([1, 40])
  })

  it("lets a thread run to the next event, or 100 us when there is none", () => {
    const host = newHost(2)
    const seen: Array<number | boolean> = []
    const look = (self: HostThread) => seen.push(host.horizon(self), host.ahead(self))
    const a = ended((self) => {
      look(self)
      self.charge(STEP.long)
      look(self)
    })
    host.start(spawn(host, "a", 0, a), 0)
    host.start(spawn(host, "b", 1, ended(look)), 500)
    runAll(host)
    // b's end goes behind a's; a's own end is the next event for b.
    expect(seen).toEqual([500, false, 500, true, LONG, false])
    const alone = newHost(1)
    alone.start(
      spawn(
        alone,
        "c",
        0,
        ended((self) => seen.push(alone.horizon(self)))
      ),
      40
    )
    runAll(alone)
    expect(seen.at(-1)).toBe(100_040)
  })

  it("refuses to start a thread twice", () => {
    const host = newHost(1)
    const a = spawn(host, "a", -1, busy(host, STEP.short))
    host.start(a, 0)
    expect(() => host.start(a, 0)).toThrow("a is started twice")
  })

  it("comes back from a thread that spins alone for ever", () => {
    const host = newHost(1)
    const thread = spawn(host, "spinner", -1, function* (self) {
      for (;;) {
        self.charge(STEP.short)
        yield WAIT.SYNC
      }
    })
    host.start(thread, 0)
    expect(host.stepMany(3)).toBe(true)
    expect(host.events).toBe(3)
  })
})
