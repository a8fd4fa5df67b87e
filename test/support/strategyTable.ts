import { STRATEGIES, type Strategy, type StrategyDesign, strategyName } from "@vmpl-lab/hv-strategies"
import type { StrategyRun } from "@vmpl-lab/lab"
import { runScenario } from "./scenarioRun.ts"
import { probeStrategy, type StrategyProbe } from "./strategyProbe.ts"

const VCPUS = 2
const CALLS = 20

type Row = readonly [title: string, value: (strategy: Strategy) => string]

const designRow = (title: string, of: (design: StrategyDesign) => string): Row => [title, ({ design }) => of(design)]

const DESIGN: ReadonlyArray<Row> = [
  designRow("status", ({ status }) => status),
  designRow("source", ({ source }) => source),
  designRow("switch takes place in", ({ switchedIn }) => switchedIn),
  designRow("each level has its own", ({ perLevel }) => perLevel),
  designRow("levels share", ({ shared }) => shared),
  designRow("software saves and loads", ({ saved }) => saved),
  designRow("AP creation at a level without objects", ({ missingOnCreate }) => missingOnCreate),
  designRow("SEV_FEATURES", ({ features }) => features),
  designRow("who wakes a more privileged level", ({ wakes }) => wakes),
  designRow("TLB on one core", ({ tlb }) => tlb),
  designRow("not said by the source", ({ unconfirmed }) => unconfirmed.join("; "))
]

const PROBES: ReadonlyArray<readonly [title: string, key: keyof StrategyProbe]> = [
  ["run VMPL of a level that was never created, by the page", "missingByPage"],
  ["the same by the MSR protocol", "missingByMsr"],
  ["run VMPL of a level whose VMSA was destroyed", "destroyed"],
  ["a second VMSA with other feature bits than the injection mode", "otherFeatures"],
  ["after a refused creation of a level that runs, it has", "refusedCreation"],
  ["CREATE of VMPL3 while VMPL2 runs: VMPL3 runs", "lessPrivileged"]
]

/** What one run counts, for a guest vCPU that uses two levels. */
const countedRows = (runs: ReadonlyMap<Strategy, readonly [spread: StrategyRun, sameCore: StrategyRun]>) => {
  const perVcpu = (name: "vcpus" | "threads"): Row => [
    `${name === "vcpus" ? "vCPU objects" : "VMM threads"} per guest vCPU`,
    (strategy) => String(runs.get(strategy)![0].hostObjects[name] / VCPUS)
  ]
  const perSwitch = (title: string, name: "userExits" | "threadHandOffs" | "tlbFlushes", run = 0): Row => [
    title,
    (strategy) => {
      const found = runs.get(strategy)![run]!.operations.find(({ operation }) => operation === "run-vmpl-one-way")!
      return String(found.counters[name] / found.ns.length)
    }
  ]
  return [
    ["VM objects", (strategy) => String(runs.get(strategy)![0].hostObjects.vms)],
    perVcpu("vcpus"),
    perVcpu("threads"),
    perSwitch("user-space exits per switch", "userExits"),
    perSwitch("hand-offs between threads per switch", "threadHandOffs"),
    perSwitch("TLB flushes per switch, threads spread", "tlbFlushes"),
    perSwitch("TLB flushes per switch, threads of a vCPU on one core", "tlbFlushes", 1)
  ] satisfies ReadonlyArray<Row>
}

/** The strategies of one table: those of a key, which differ least among themselves. */
const section = (strategies: ReadonlyArray<Strategy>, rows: ReadonlyArray<Row>): ReadonlyArray<string> => [
  "<!-- prettier-ignore -->",
  `| | ${strategies.map((strategy) => `\`${strategyName(strategy)}\``).join(" | ")} |`,
  `| --- |${" --- |".repeat(strategies.length)}`,
  ...rows.map(([title, value]) => `| ${title} | ${strategies.map(value).join(" | ")} |`),
  ""
]

/** docs/strategies.md. */
export const strategyDocument = (): string => {
  const runs = new Map(
    STRATEGIES.map((strategy) => {
      const run = (placement: "spread" | "same-core") =>
        runScenario(strategy, { vcpus: VCPUS, calls: CALLS, placement })
      return [strategy, [run("spread"), run("same-core")] as const] as const
    })
  )
  const probes = new Map(STRATEGIES.map((strategy) => [strategy, probeStrategy(strategy)] as const))
  const rows: ReadonlyArray<Row> = [
    ...DESIGN,
    ...countedRows(runs),
    ...PROBES.map(([title, key]): Row => [title, (strategy) => probes.get(strategy)![key]])
  ]
  const keys = [...new Set(STRATEGIES.map(({ key }) => key))]
  return [
    "# What differs between strategies by design",
    "",
    "Made by `node scripts/strategy-table.mjs`. The first rows are the strategies' own words, kept beside their code; the",
    `numbers and the answers come from runs of a guest with ${VCPUS} vCPUs at two levels, made when this file is. What must`,
    "not differ is in `test/conformance`. A new strategy: [write-a-strategy.md](write-a-strategy.md).",
    "",
    ...keys.flatMap((key) => [
      `## ${key}`,
      "",
      ...section(
        STRATEGIES.filter((strategy) => strategy.key === key),
        rows
      )
    ])
  ].join("\n")
}
