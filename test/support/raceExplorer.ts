import type { Cpu, Race } from "./raceCalls.ts"
import { RaceMachine } from "./raceMachine.ts"

/** A schedule is the CPU of each step, in turn. */
export interface Finding {
  readonly schedule: string
  readonly violation: string
}

export interface Explored {
  /** States of machine and SVSM that were told apart. */
  readonly states: number
  /** Results of both calls, hex, of every way in which they can end. */
  readonly outcomes: ReadonlySet<string>
  /** The first schedule found that breaks something, or null. */
  readonly finding: Finding | null
}

/**
 * Visits every state that two calls can come to, whichever CPU goes on at each operation. Programs cannot be copied, so
 * that a branch is replayed from the start.
 */
export const exploreRace = (race: Race): Explored => {
  const seen = new Set<string>()
  const outcomes = new Set<string>()
  const open: Array<string> = [""]
  for (let prefix = open.pop(); prefix !== undefined; prefix = open.pop()) {
    const machine = new RaceMachine(race)
    for (const cpu of prefix) machine.step(Number(cpu) as Cpu)
    for (let schedule = prefix; ; ) {
      if (machine.violation !== null) {
        return { states: seen.size, outcomes, finding: { schedule, violation: machine.violation } }
      }
      const digest = machine.digest()
      if (seen.has(digest)) break
      seen.add(digest)
      const [first, second] = ([0, 1] as const).filter((cpu) => !machine.done[cpu])
      if (first === undefined) {
        outcomes.add(machine.results())
        break
      }
      if (second !== undefined) open.push(`${schedule}${second}`)
      machine.step(first)
      schedule += first
    }
  }
  return { states: seen.size, outcomes, finding: null }
}

/** Runs one schedule, then whatever is left, CPU by CPU. @returns what it breaks, or null */
export const replayRace = (race: Race, schedule: string): string | null => {
  const machine = new RaceMachine(race)
  for (const cpu of schedule) {
    if (machine.violation !== null) return machine.violation
    if (!machine.done[Number(cpu)]) machine.step(Number(cpu) as Cpu)
  }
  for (let turn = 0; turn < 1_000 && machine.violation === null; turn++) {
    const cpu = (turn % 2) as Cpu
    if (!machine.done[cpu]) machine.step(cpu)
  }
  return machine.violation
}
