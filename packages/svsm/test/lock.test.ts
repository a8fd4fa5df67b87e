import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { RwLock } from "../src/Lock.ts"

/** Runs a lock's program until it holds or has spun so often. */
const spin = (program: Generator, looks: number): boolean => {
  for (let i = 0; i < looks; i++) if (program.next().done === true) return true
  return false
}

describe("RwLock", () => {
  it("lets readers in together, and no reader after a writer that waits for them", () => {
    const lock = new RwLock()
    const [writer, late] = [lock.write(), lock.read()]
    expect([spin(lock.read(), 1), spin(lock.read(), 1)]).toEqual([true, true])
    expect([spin(writer, 3), spin(late, 3)]).toEqual([false, false])
    lock.release()
    expect([spin(writer, 3), spin(late, 3)]).toEqual([false, false])
    lock.release()
    expect([spin(late, 3), spin(writer, 1), spin(late, 3)]).toEqual([false, true, false])
    lock.release()
    expect(spin(late, 1)).toBe(true)
  })

  it("never has a writer beside anybody else, and everybody gets it", () => {
    const cpus = fc.array(fc.boolean(), { minLength: 2, maxLength: 6 })
    const order = fc.array(fc.nat(5), { maxLength: 60 })
    fc.assert(
      fc.property(cpus, order, (writes, steps) => {
        const lock = new RwLock()
        const programs = writes.map((isWriter) => (isWriter ? lock.write() : lock.read()))
        const holders = new Set<number>()
        const done = new Set<number>()
        const step = (cpu: number): void => {
          if (done.has(cpu)) return
          if (holders.has(cpu)) {
            lock.release()
            holders.delete(cpu)
            done.add(cpu)
          } else if (programs[cpu]!.next().done === true) holders.add(cpu)
          if ([...holders].some((one) => writes[one])) expect(holders.size).toBe(1)
        }
        for (const cpu of steps) if (cpu < writes.length) step(cpu)
        for (let round = 0; round < 20; round++) for (const cpu of writes.keys()) step(cpu)
        expect(done.size).toBe(writes.length)
      })
    )
  })
})
