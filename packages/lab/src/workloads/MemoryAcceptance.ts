import type { AcceptancePlan } from "@vmpl-lab/guest"
import { RandomStream } from "@vmpl-lab/sim"
import * as Schema from "effect/Schema"
import type { Scenario } from "../Scenario.ts"
import { HIGH_RAM_GPA, type LaunchNeeds } from "../SvsmLaunch.ts"

const MIB = 0x10_0000
/** Entries of a list unless told otherwise: as many as one page state change takes, which is Linux' batch. */
const ENTRIES_PER_LIST = 253
/** Memory that is accepted in 4 KiB entries stays within what can be simulated: 2 million pages. */
const MEBIBYTES_4K_MAX = 8_192

const between = (minimum: number, maximum: number) =>
  Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))

/** Keys of the workload `memory-acceptance`, under `memoryAcceptance`. */
export const MemoryAcceptanceKeys = Schema.Struct({
  /** Memory that the guest accepts, 2 MiB to 64 GiB in whole 2 MiB regions. */
  mebibytes: between(2, 65_536).pipe(Schema.check(Schema.isMultipleOf(2))),
  /** Size of the PVALIDATE list entries that the guest tries first. */
  entrySize: Schema.Literals(["4K", "2M"]),
  /** PVALIDATE lists after page state changes of the guest's own, or a range in one call; `list` when left out. */
  by: Schema.optionalKey(Schema.Literals(["list", "range"])),
  /** Of 1000 regions of 2 MiB, how many the host can back with 4 KiB pages only. */
  fragmentedPermille: Schema.optionalKey(between(0, 1_000)),
  /** Entries of one PVALIDATE list, 253 when left out. */
  entriesPerList: Schema.optionalKey(between(1, 511)),
  /** Entries that the SVSM serves before it answers INCOMPLETE; 0 or absent: all, as COCONUT-SVSM serves any list. */
  entriesPerCall: Schema.optionalKey(between(0, 511))
})

type Keys = NonNullable<Scenario["memoryAcceptance"]>

const DEFAULTS: Keys = { mebibytes: 1_024, entrySize: "2M" }

const keysOf = ({ memoryAcceptance }: Scenario): Keys => memoryAcceptance ?? DEFAULTS

/** What is wrong with a scenario's memory, if anything: as a path and what was expected. */
export const acceptanceTrouble = (scenario: Scenario) => {
  const { mebibytes, entrySize, fragmentedPermille = 0 } = keysOf(scenario)
  const small = entrySize === "4K" ? mebibytes : (mebibytes * fragmentedPermille) / 1_000
  if (small <= MEBIBYTES_4K_MAX) return undefined
  const path = ["memoryAcceptance", entrySize === "4K" ? "mebibytes" : "fragmentedPermille"]
  return { path, issue: `at most ${MEBIBYTES_4K_MAX} MiB in pages of 4 KiB, as each is simulated` }
}

/** The guest's plan: which memory, in entries of which size. */
export const acceptancePlan = (scenario: Scenario, acceptors: number): AcceptancePlan => {
  const { mebibytes, entrySize, by, entriesPerList = ENTRIES_PER_LIST } = keysOf(scenario)
  const is2m = entrySize === "2M"
  return { gpa: HIGH_RAM_GPA, bytes: mebibytes * MIB, is2m, byRange: by === "range", entriesPerList, acceptors }
}

/** The memory that is there, and how the host backs it: the same regions under every strategy. */
export const acceptanceNeeds = (scenario: Scenario, seed: number): Partial<LaunchNeeds> => {
  const { mebibytes, fragmentedPermille = 0, entriesPerCall = 0 } = keysOf(scenario)
  const stream = new RandomStream(seed, "fragmented")
  const fragmented = Array.from({ length: mebibytes / 2 }, () => stream.int(0, 999) < fragmentedPermille)
  return { highRam: mebibytes * MIB, isLarge: (region) => fragmented[region] !== true, entriesPerCall }
}
