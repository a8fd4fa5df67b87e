import { readdirSync, readFileSync } from "node:fs"
import { SVSM_BEHAVIOURS } from "@vmpl-lab/svsm"
import { describe, expect, it } from "vitest"
import type { Race, RaceCall, Start } from "../support/raceCalls.ts"
import { exploreRace, type Finding, replayRace } from "../support/raceExplorer.ts"

/** Calls that change what a page is, at one page that all of them may name. */
const CHANGES: ReadonlyArray<RaceCall> = [
  "validate",
  "rescind",
  "rescind and validate",
  "create",
  "create with its area in P",
  "remap",
  "delete the other"
]
/** Calls of the specification's behaviour only. */
const EXCHANGES: ReadonlyArray<RaceCall> = ["deposit", "withdraw", "withdraw to P"]
/** Calls that copy into the page what the guest can choose. */
const COPIES: ReadonlyArray<RaceCall> = ["TPM command in P", "report to P", "service that fills P"]

type Row = readonly [start: Start, first: RaceCall, second: RaceCall]
/** Each call with itself and with those after it. */
const pairs = (start: Start, calls: ReadonlyArray<RaceCall>): ReadonlyArray<Row> =>
  calls.flatMap((first, i) => calls.slice(i).map((second) => [start, first, second] as const))
const between = (start: Start, calls: ReadonlyArray<RaceCall>, others: ReadonlyArray<RaceCall>): ReadonlyArray<Row> =>
  calls.flatMap((first) => others.map((second) => [start, first, second] as const))

/** What the behaviours do differently, in one way or another. */
const BOTH: ReadonlyArray<Row> = [
  ...pairs("validated", CHANGES),
  ...pairs("unvalidated", ["validate", "rescind", "create"]),
  ...between("vmsa", ["delete"], ["delete", ...CHANGES])
]
/** What comes to the same instructions in both. */
const COMMON: ReadonlyArray<Row> = [
  ...between("validated", COPIES, ["rescind and validate", "create", "create with its area in P", "remap"]),
  ["validated", "TPM command in P", "service that fills P"],
  ["validated", "report to P", "report to P"],
  ...between("unvalidated", ["validate"], ["remap", "create with its area in P", ...COPIES]),
  ...between("vmsa", ["delete"], COPIES)
]
/** Services of the model's own, which know of no behaviours. */
const SERVICES: ReadonlyArray<Row> = [
  ...between("unvalidated", ["accept"], ["accept", "validate", "rescind", "create", "remap"]),
  ...between("validated", ["accept"], ["rescind", "rescind and validate"]),
  ...between("validated", ["export"], ["rescind", "rescind and validate", "create", "deposit"]),
  ...between("validated", ["export"], ["validate the buffer", "fault at P"]),
  ...between("guarded", ["fault at P"], ["fault at P", "rescind", "rescind and validate"]),
  ...between("guarded", ["export", "resume"], ["fault at P"]),
  ...between("guarded", ["resume"], ["rescind", "create"]),
  ["parked", "resume", "delete"],
  ...between("validated", ["import"], ["rescind", "create", "service that fills P"]),
  ...between("unvalidated", ["import"], ["validate", "accept", "service that fills P"])
]
const SPECIFICATION: ReadonlyArray<Row> = [
  ...between("validated", ["rescind the other's list"], ["rescind the other's list", ...CHANGES, ...COPIES]),
  ...pairs("validated", EXCHANGES.slice(0, 1)),
  ...between("validated", ["deposit"], [...CHANGES, "rescind the other's list", "withdraw to P", ...COPIES]),
  ...between("validated", ["withdraw"], ["rescind the other's list"]),
  ...between("deposited", ["withdraw"], ["withdraw", "validate", "rescind", "create", "remap", "TPM command in P"]),
  ...between("vmsa", ["delete"], EXCHANGES)
]
const ROWS = {
  specification: [...BOTH, ...COMMON, ...SPECIFICATION, ...SERVICES],
  coconut: [...BOTH, ["unvalidated", "accept", "accept"] as const]
}

describe.each(SVSM_BEHAVIOURS)("as %s, two vCPUs' calls at one page, operation by operation", (behaviour) => {
  it.each(ROWS[behaviour])(
    "%s: %s and %s break nothing, however they interleave",
    (start, first, second) => {
      const { finding, outcomes, states } = exploreRace({
        calls: [first, second],
        start,
        without: "nothing",
        behaviour
      })
      expect(finding).toBeNull()
      expect(outcomes.size).toBeGreaterThan(0)
      // More than one after the other: the steps of one call between all those of the other.
      expect(states).toBeGreaterThan(200)
    },
    60_000
  )
})

it("two calls can end in more ways than one", () => {
  const race = { calls: ["create", "remap"], start: "validated", without: "nothing" } as const
  expect(exploreRace(race).outcomes).toEqual(new Set(["0 80000003", "80000003 0"]))
})

/** Schedules that break an SVSM from which something was taken away. */
const FOLDER = new URL("../../scenarios/svsm-races/", import.meta.url)
const FILES = readdirSync(FOLDER).sort()

describe.each(FILES)("the schedule %s", (file) => {
  const { schedule, violation, ...race }: Race & Finding = JSON.parse(readFileSync(new URL(file, FOLDER), "utf8"))

  it("breaks the SVSM without its lock, its marks, its holds or what it keeps", () => {
    expect(race.without).not.toBe("nothing")
    expect(replayRace(race, schedule)).toBe(violation)
  })

  it("does nothing to the SVSM as it is", () => {
    expect(replayRace({ ...race, without: "nothing" }, schedule)).toBeNull()
  })
})

describe("the same exploration finds the attack", () => {
  it.each([
    ["lock", "rescind and validate", "create", "the guest may write VMSA 5"],
    ["lock", "TPM command in P", "create", "the SVSM copies to page 5, not the guest's"],
    ["marks", "rescind", "rescind", "the SVSM is shut down on CPU 1, exit 0x7f"],
    ["holds", "report to P", "rescind and validate", "the SVSM copies to page 5, not the guest's"],
    ["kept", "export", "deposit", "deposit 5 is usable"]
  ] as const)(
    "without its %s: %s and %s",
    (without, first, second, violation) => {
      const race = { calls: [first, second], start: "validated", without } as const
      expect(exploreRace(race).finding?.violation).toBe(violation)
    },
    60_000
  )
})
