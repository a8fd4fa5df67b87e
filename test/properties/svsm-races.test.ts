import { readdirSync, readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { exploreRace, type Finding, type Race, replayRace } from "../support/raceExplorer.ts"
import type { RaceCall, Start } from "../support/raceMachine.ts"

/** Calls that meet at one page which all of them may name. */
const CALLS: ReadonlyArray<RaceCall> = [
  "rescind and validate",
  "rescind the other's list",
  "create",
  "create with its area in P",
  "remap",
  "delete the other",
  "deposit"
]
/** Calls that meet a page that is a vCPU's VMSA, beside one that deletes it. */
const AT_VMSA: ReadonlyArray<RaceCall> = ["delete", "rescind and validate", "create", "remap", "deposit", "withdraw"]

const RACES: ReadonlyArray<readonly [start: Start, first: RaceCall, second: RaceCall]> = [
  ...CALLS.flatMap((first, i) => CALLS.slice(i).map((second) => ["validated", first, second] as const)),
  ...AT_VMSA.map((second) => ["vmsa", "delete", second] as const),
  ["unvalidated", "validate", "validate"],
  ["unvalidated", "validate", "rescind"]
]

describe("two vCPUs' calls at one page, operation by operation", () => {
  it.each(RACES)(
    "%s: %s and %s break nothing, however they interleave",
    (start, first, second) => {
      const { finding, outcomes, states } = exploreRace({ calls: [first, second], start, without: "nothing" })
      expect(finding).toBeNull()
      expect(outcomes.size).toBeGreaterThan(0)
      // More than one after the other: the steps of one call between all those of the other.
      expect(states).toBeGreaterThan(200)
    },
    60_000
  )

  it("can end in more ways than one", () => {
    const race = { calls: ["create", "remap"], start: "validated", without: "nothing" } as const
    expect(exploreRace(race).outcomes).toEqual(new Set(["0 80000003", "80000003 0"]))
  })
})

/** Schedules that break an SVSM from which something was taken away. */
const FOLDER = new URL("../../scenarios/svsm-races/", import.meta.url)
const FILES = readdirSync(FOLDER).sort()

describe.each(FILES)("the schedule %s", (file) => {
  const { schedule, violation, ...race }: Race & Finding = JSON.parse(readFileSync(new URL(file, FOLDER), "utf8"))

  it("breaks the SVSM without its lock, or without its marks", () => {
    expect(race.without).not.toBe("nothing")
    expect(replayRace(race, schedule)).toBe(violation)
  })

  it("does nothing to the SVSM as it is", () => {
    expect(replayRace({ ...race, without: "nothing" }, schedule)).toBeNull()
  })
})

it("without the lock the same exploration finds the attack", () => {
  const race = { calls: ["rescind and validate", "create"], start: "validated", without: "lock" } as const
  expect(exploreRace(race).finding?.violation).toBe("the guest may write VMSA 5")
}, 60_000)
