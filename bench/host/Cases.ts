import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { type Observation, observeCase, observeShell } from "./Observe.ts"
import { observeReference } from "./Reference.ts"
import { observeSimpy, simpyVersion } from "./Simpy.ts"

/** One thing that is measured. An observation is one fresh process. */
export interface Case {
  readonly name: string
  /** Says what a process does before its clock starts. */
  readonly warmUp: string
  readonly observe: (quick: boolean) => Observation
  /** The figures of an observation: what they mean, their unit, and a goal where there is one. */
  readonly figures: ReadonlyArray<Figure>
  /** Why it cannot be run here, or null: then it is left out. Without it a case can always be run. */
  readonly missing?: () => string | null
  /** Left out of a quick run, as another case is much the same. */
  readonly fullOnly?: true
}

export interface Figure {
  readonly value: string
  readonly unit: string
  /** What the figure should stay below; printed beside it, never enforced. */
  readonly goal?: number
}

const quickly = (quick: boolean): ReadonlyArray<string> => (quick ? ["--quick"] : [])

const shell: ReadonlyArray<Case> = [
  {
    name: "default compare, vmpl-lab",
    warmUp: "none in the process; one run before the first, for file and code caches",
    observe: () => observeShell("node_modules/.bin/vmpl-lab", ["compare"]),
    figures: [{ value: "seconds", unit: "s", goal: 5 }]
  },
  {
    name: "default compare, npm run compare",
    warmUp: "none in the process; one run before the first, for file and code caches",
    observe: () => observeShell("npm", ["run", "--silent", "compare"]),
    fullOnly: true,
    figures: [{ value: "seconds", unit: "s", goal: 5 }]
  }
]

const simulationOf = (strategy: string): string => `simulation, ${strategy}`

export const SIMULATIONS: ReadonlyArray<string> = STRATEGIES.map((strategy) => simulationOf(strategyName(strategy)))

const simulation: ReadonlyArray<Case> = STRATEGIES.map(strategyName).map((strategy) => ({
  name: simulationOf(strategy),
  warmUp: "2,000 calls of each of 4 vCPUs, then launch and boot; 20,000 calls of each are timed (quick: 200, 1,000)",
  observe: (quick) => observeCase("RoundTrip.ts", [strategy, ...quickly(quick)]),
  figures: [
    { value: "usPerRoundTrip", unit: "us per round trip", goal: 4 },
    { value: "cpuUsPerRoundTrip", unit: "us of CPU time per round trip, all threads of the process" },
    { value: "eventsPerSecond", unit: "scheduler events/s" }
  ]
}))

/** vCPUs of the largest guest. */
const LARGE = 512

const largeGuest: Case = {
  name: `${LARGE} vCPUs, four levels, 100,000 calls`,
  warmUp: "none: launch, boot of all levels and 200 calls of each vCPU are timed",
  observe: () => observeCase("LargeGuest.ts", [String(LARGE)]),
  fullOnly: true,
  figures: [
    { value: "seconds", unit: "s", goal: 60 },
    { value: "cpuSeconds", unit: "s of CPU time" },
    { value: "eventsPerSecond", unit: "scheduler events/s" },
    { value: "peakMiB", unit: "MiB resident at most", goal: 2048 }
  ]
}

export const ACCESS_CHECKS = {
  typed: "RMP access check, typed array",
  map: "RMP access check, Map",
  objects: "RMP access check, array of objects"
} as const

const accessCheck: ReadonlyArray<Case> = Object.entries(ACCESS_CHECKS).map(([subject, name]) => ({
  name,
  warmUp: "50 passes over 65,536 accesses; 300 passes are timed (quick: 5, 20)",
  observe: (quick) => observeCase("AccessCheck.ts", [subject, ...quickly(quick)]),
  figures: [{ value: "ns", unit: "ns per check" }]
}))

export const REFERENCE_CHECKS = {
  typed: "RMP access check on random pages of 1 GiB",
  c: "the same in C, cc -O2"
} as const

export const EXITS = {
  off: "GHCB exits, nobody at the trace points",
  on: "GHCB exits, every trace point taken"
} as const

const exits: ReadonlyArray<Case> = Object.entries(EXITS).map(([subject, name]) => ({
  name,
  warmUp: "20,000 exits; 200,000 are timed (quick: 10,000)",
  observe: (quick) => observeCase("Exits.ts", [subject, ...quickly(quick)]),
  figures: [{ value: "exitsPerSecond", unit: "exits/s: instruction, #VC, GHCB, handler, VMRUN" }]
}))

const passes = (quick: boolean): ReadonlyArray<string> => (quick ? ["2", "4"] : ["8", "40"])

const referenceCheck: ReadonlyArray<Case> = [
  { name: REFERENCE_CHECKS.typed, observe: (quick: boolean) => observeCase("ReferenceCheck.ts", passes(quick)) },
  { name: REFERENCE_CHECKS.c, observe: (quick: boolean) => observeReference(passes(quick)) }
].map((one) => ({
  ...one,
  warmUp: "8 passes over 1,048,576 accesses; 40 passes are timed (quick: 2, 4)",
  figures: [{ value: "ns", unit: "ns per check" }]
}))

export const HAND_OFFS = { host: "hand-offs of host threads", simpy: "the same in SimPy" } as const

/** Hand-offs of each of six rings. */
const handOffs = (quick: boolean): ReadonlyArray<string> => [quick ? "2000" : "50000"]

const handOff: ReadonlyArray<Case> = [
  { name: HAND_OFFS.host, observe: (quick: boolean) => observeCase("HandOff.ts", handOffs(quick)) },
  {
    name: HAND_OFFS.simpy,
    observe: (quick: boolean) => observeSimpy(handOffs(quick)),
    missing: () => (simpyVersion() === null ? "Debian's python3-simpy is not installed" : null)
  }
].map((one) => ({
  ...one,
  warmUp: "30,000 hand-offs; 300,000 are timed (quick: 1,200, 12,000)",
  figures: [{ value: "handOffsPerSecond", unit: "hand-offs/s" }]
}))

const pageSetup: Case = {
  name: "page setup",
  warmUp:
    "a guest of 128 MiB in 4 KiB and one of 8 GiB in 2 MiB pages; 8 GiB and 1 TiB are timed (quick: 256 MiB, 32 GiB)",
  observe: (quick) => observeCase("PageSetup.ts", quickly(quick)),
  figures: [
    { value: "pagesPerSecond", unit: "4 KiB pages/s: RMPUPDATE, PVALIDATE, RMPADJUST" },
    { value: "bytesPer4K", unit: "bytes held per 4 KiB page", goal: 18 },
    { value: "residentPer4K", unit: "bytes resident per 4 KiB page" },
    { value: "secondsIn2M", unit: "s for 1 TiB in 2 MiB pages", goal: 10 },
    { value: "heldMiBIn2M", unit: "MiB held for it", goal: 128 },
    { value: "residentMiBIn2M", unit: "MiB resident for it", goal: 128 }
  ]
}

const exploration: Case = {
  name: "explorer of the small RMP",
  warmUp: "an exploration without one check; all states are timed (quick: without one check)",
  observe: (quick) => observeCase("Explore.ts", quickly(quick)),
  figures: [
    { value: "statesPerSecond", unit: "states/s" },
    { value: "bytesPerState", unit: "bytes resident per state" }
  ]
}

export const KEY_CHANGE = "memory encryption"

const keyChange: Case = {
  name: KEY_CHANGE,
  warmUp: "a tenth of the timed rounds, for each figure",
  observe: (quick) => observeCase("KeyChange.ts", quickly(quick)),
  figures: [
    { value: "change", unit: "ns per write under another key" },
    { value: "same", unit: "ns per write under the same key" },
    { value: "hostRead", unit: "ns per host read of a private page" },
    { value: "copy", unit: "ns per copy of 4 KiB" }
  ]
}

export const CASES: ReadonlyArray<Case> = [
  ...shell,
  ...simulation,
  largeGuest,
  ...exits,
  ...accessCheck,
  ...referenceCheck,
  ...handOff,
  pageSetup,
  exploration,
  keyChange
]
