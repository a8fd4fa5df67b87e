import { styleText } from "node:util"
import { strategyName } from "@vmpl-lab/hv-strategies"
import { SWITCH_IDS, SWITCH_MEANING, type Switches } from "@vmpl-lab/rmp"
import type { OperationName } from "./ComparisonRun.ts"
import { grid } from "./Grid.ts"
import { interruptCountTable, interruptLatencyTable, misdeliveryLines } from "./InterruptTable.ts"
import type { ComparisonJson, ResultEntry } from "./Summary.ts"
import type { PairedJson } from "./statistics/PairedRuns.ts"
import { intervalTable, pairedTables } from "./statistics/StatisticsTable.ts"
import { count, duration, percent, ratio } from "./Units.ts"
import { workloadSections } from "./WorkloadTable.ts"
import { wrap } from "./Wrap.ts"

/** How a table is drawn. */
export interface TableOptions {
  readonly colour: boolean
  readonly breakdown: boolean
  /** Whether the confidence intervals of the quantiles are shown. */
  readonly intervals: boolean
}

/** The two run-VMPL operations go by their short names: a full one would not fit. */
const OPERATION_TEXT: { readonly [K in OperationName]: string } = {
  "ap-create": "AP create",
  "run-vmpl-round-trip": "round trip",
  "run-vmpl-one-way": "one way"
}

const byOperation = (results: ReadonlyArray<ResultEntry>): ReadonlyArray<ResultEntry> => {
  const order = Object.keys(OPERATION_TEXT)
  return results.toSorted((a, b) => order.indexOf(a.operation) - order.indexOf(b.operation))
}

const latencyTable = (json: ComparisonJson): string =>
  grid(
    ["operation", "strategy", "samples", "p50", "p90", "p99", "to fastest"],
    [2, 3, 4, 5, 6],
    byOperation(json.results).map(({ operation, strategy, variant, samples, ns, ratioToFastest }) => [
      OPERATION_TEXT[operation],
      strategyName({ key: strategy, variant }),
      String(samples),
      duration(ns.p50),
      duration(ns.p90),
      duration(ns.p99),
      ratio(ratioToFastest)
    ])
  )

const switchTable = (json: ComparisonJson): string =>
  grid(
    [
      "operation",
      "strategy",
      "VM\nexits",
      "user\nexits",
      "ioctls",
      "hand-\noffs",
      "kicks",
      "TLB\nflushes",
      "KVM objs\nper vCPU"
    ],
    [2, 3, 4, 5, 6, 7, 8],
    byOperation(json.results).map(({ operation, strategy, variant, perSwitch }) => {
      const objects = json.strategies.find((one) => one.strategy === strategy && one.variant === variant)
      return [
        OPERATION_TEXT[operation],
        variant === null ? strategy : `${strategy}\n(${variant})`,
        count(perSwitch.vmExits),
        count(perSwitch.userExits),
        count(perSwitch.ioctls),
        count(perSwitch.threadHandOffs),
        count(perSwitch.kicks),
        count(perSwitch.tlbFlushes),
        count(objects?.kvmObjectsPerGuestVcpu ?? null)
      ]
    })
  )

/** AP create by VMPL and request: what the first table mixes. */
const groupTable = (json: ComparisonJson): string =>
  grid(
    ["AP create", "strategy", "samples", "p50", "p90", "p99"],
    [2, 3, 4, 5],
    json.results.flatMap(({ operation, strategy, variant, groups }) =>
      (operation === "ap-create" ? groups : []).map(({ name, samples, ns }) => [
        name,
        strategyName({ key: strategy, variant }),
        String(samples),
        duration(ns.p50),
        duration(ns.p90),
        duration(ns.p99)
      ])
    )
  )

const breakdownTable = (result: ResultEntry): string => {
  const mean = result.ns.mean ?? 0
  return grid(
    ["primitive", "ns", "share", "basis", "source"],
    [1, 2],
    result.breakdown.map((row) => [
      // A sum and a list of sources are longer than a column: one part a line.
      row.primitive.replaceAll(" + ", " +\n"),
      row.ns.toFixed(1),
      percent(mean === 0 ? null : row.ns / mean),
      row.basis,
      row.source.replaceAll(", ", ",\n")
    ])
  )
}

/** "multi-vmpl-vcpu 41 % (AP create), 22 % (round trip)": the operations of one strategy on one line. */
const assumedLines = (json: ComparisonJson): ReadonlyArray<string> =>
  json.strategies.map(({ strategy, variant }) => {
    const own = json.results.filter((result) => result.strategy === strategy && result.variant === variant)
    const parts = byOperation(own).map(
      (result) => `${OPERATION_TEXT[result.operation]} ${percent(result.assumedShare)}`
    )
    return `  ${variant === null ? strategy : `${strategy} (${variant})`}: ${parts.join(", ")}`
  })

const switchText = (switches: Switches): string => {
  const changed = SWITCH_IDS.filter((id) => switches[id] === "alternative")
  const range = `${SWITCH_IDS[0]} to ${SWITCH_IDS.at(-1)}`
  return changed.length === 0
    ? `${range} at their defaults`
    : `${range} at their defaults but for ${changed.map((id) => `${id} (${SWITCH_MEANING[id][1]})`).join(", ")}`
}

const pairedLines = ({ replications, seed, calls, level }: PairedJson): ReadonlyArray<string> => [
  wrap(
    `Paired: ${replications} more runs of each strategy, one boot with ${calls} calls of each vCPU, seeds ${seed} to ` +
      `${seed + replications - 1}; medians of equal seeds are compared. Each interval alone is one of ` +
      `${level * 100} %; in many comparisons a few miss.`
  )
]

/** "a, b and c". */
const listed = (names: ReadonlyArray<string>): string =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`

/** What COCONUT-SVSM would have done in place of the SVSM that acts as it. */
const panicLines = ({ strategies }: ComparisonJson): ReadonlyArray<string> => {
  if (strategies.every(({ coconutPanics }) => coconutPanics === null)) return []
  const lines = strategies.flatMap(({ strategy, variant, coconutPanics }) =>
    (coconutPanics ?? []).map(({ why, times }) =>
      wrap(
        `WARNING: COCONUT-SVSM would have stopped the guest, ${times} times under ` +
          `${strategyName({ key: strategy, variant })}: ${why}.`
      )
    )
  )
  return lines.length > 0 ? lines : ["COCONUT-SVSM would not have stopped the guest anywhere."]
}

const footer = (json: ComparisonJson): string => {
  const { vcpus, calls, boots, ring, host } = json.parameters
  return [
    wrap("Simulated, not measured: latencies are virtual time, the sum of the steps taken at the profile's prices."),
    wrap(
      `Profile ${json.profile}: ${json.machine}. Prices without a published figure for it come from other machines ` +
        "or are guesses; the profile's notes tell which."
    ),
    wrap(
      json.varying.length === 0
        ? "Every price is constant: spread comes from the path alone."
        : `p90 and p99 rest on assumed spreads of ${listed(json.varying)}; all other prices are constant.`
    ),
    ...(json.occasional.length === 0
      ? []
      : [wrap(`Whether they are taken at all is drawn, at a guessed rate: ${json.occasional.join(" and ")}.`)]),
    wrap(
      `Scenario ${json.scenario}: ${vcpus} vCPUs, ${calls} calls each, ${boots} boots, ring by ${ring}, ` +
        `${host.cores} host cores, placement ${host.placement}; seed ${json.seed}; commit ${json.commit}.`
    ),
    ...(json.paired === null ? [] : pairedLines(json.paired)),
    wrap(`RMP, what the documents leave open: ${switchText(json.rmpSwitches)}.`),
    ...panicLines(json),
    "How much of the mean rests on assumed costs:",
    ...assumedLines(json),
    wrap(`Firmware ${json.firmware.name}, ${json.firmware.bytes} bytes. Launch digest:`),
    `  ${json.launchDigest}`,
    "State digest:",
    `  ${json.stateDigest}`,
    ...(json.guestDigest === null ? ["WARNING: the strategies do not agree on what the guest saw."] : []),
    `The simulation took ${duration(json.wall.totalMs * 1e6)} of this host's time.`
  ].join("\n")
}

/** The whole human-readable report, ending in a line feed, at most 100 columns wide. */
export const renderComparison = (json: ComparisonJson, { colour, breakdown, intervals }: TableOptions): string => {
  // validateStream off: whether colour is wanted was decided by the caller.
  const bold = (text: string) => (colour ? styleText("bold", text, { validateStream: false }) : text)
  const dim = (text: string) => (colour ? styleText("dim", text, { validateStream: false }) : text)
  const sections = [
    bold("Latency of AP create and run VMPL"),
    latencyTable(json),
    "",
    bold("What the host does for one VMPL switch (a round trip has two)"),
    switchTable(json)
  ]
  if (json.results.some(({ operation, groups }) => operation === "ap-create" && groups.length > 0)) {
    sections.push("", bold("AP create by level and request (the first use of a level creates its objects)"))
    sections.push(groupTable(json))
  }
  if (intervals) {
    sections.push("", bold("95 % confidence intervals of the quantiles"))
    sections.push(intervalTable(byOperation(json.results), OPERATION_TEXT))
  }
  for (const { title, table } of json.paired === null ? [] : pairedTables(json.paired, OPERATION_TEXT)) {
    sections.push("", bold(title), table)
  }
  if (json.interrupts !== undefined) {
    sections.push("", bold("Interrupts: whose handler ran"), interruptCountTable(json.interrupts))
    sections.push(...misdeliveryLines(json.interrupts))
    sections.push("", bold("Interrupts: from the source to the handler at their own level, by what ran when they came"))
    sections.push(interruptLatencyTable(json.interrupts))
  }
  for (const { title, table } of workloadSections(json)) sections.push("", bold(title), table)
  if (breakdown) {
    for (const result of byOperation(json.results)) {
      if (result.samples === 0) continue
      const title = `${OPERATION_TEXT[result.operation]}, ${result.strategy}${result.variant === null ? "" : ` (${result.variant})`}`
      sections.push("", bold(`${title}: mean ${duration(result.ns.mean)}`), breakdownTable(result))
    }
  }
  return `${[...sections, "", dim(footer(json))].join("\n")}\n`
}
