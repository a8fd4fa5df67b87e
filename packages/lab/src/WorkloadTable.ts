import { grid } from "./Grid.ts"
import type { ComparisonJson, StrategyEntry } from "./Summary.ts"
import { count, duration, percent } from "./Units.ts"

/** A heading and a table under it. */
export interface Section {
  readonly title: string
  readonly table: string
}

const KIB = 1_024
const GIB = 2 ** 30

/** What the host spent, and how long the guest took to come up. */
const hostTable = ({ strategies }: ComparisonJson): string =>
  grid(
    ["strategy", "variant", "CPU time\nper call", "stolen\nfrom guest", "host KiB\nper vCPU", "all vCPUs\nup after"],
    [2, 3, 4, 5],
    strategies.map(({ strategy, variant, host, boot }) => [
      strategy,
      variant ?? "-",
      duration(host.cpuNsPerCall),
      duration(host.stolenNs),
      count(Math.round(host.bytesPerVcpu / KIB)),
      duration(boot.allUpNs.p50)
    ])
  )

/** Round trips by caller and called level. */
const pairTable = ({ results }: ComparisonJson): string =>
  grid(
    ["round trip", "strategy", "variant", "samples", "p50", "p90", "p99"],
    [3, 4, 5, 6],
    results.flatMap(({ operation, strategy, variant, groups }) =>
      operation !== "run-vmpl-round-trip"
        ? []
        : groups.map(({ name, samples, ns }) => [
            name,
            strategy,
            variant ?? "-",
            String(samples),
            duration(ns.p50),
            duration(ns.p90),
            duration(ns.p99)
          ])
    )
  )

/** AP creates: the first of each boot, which may create what later ones find, against those. */
const firstTable = ({ strategies }: ComparisonJson): string =>
  grid(
    ["AP create", "strategy", "variant", "first p50", "later p50", "later max"],
    [3, 4, 5],
    strategies.flatMap(({ strategy, variant, boot }) =>
      boot.apCreate.map(({ name, first, later }) => [
        name,
        strategy,
        variant ?? "-",
        duration(first.p50),
        duration(later.p50),
        duration(later.max)
      ])
    )
  )

type Accepting = StrategyEntry & { readonly acceptance: NonNullable<StrategyEntry["acceptance"]> }

const accepting = ({ strategies }: ComparisonJson): ReadonlyArray<Accepting> =>
  strategies.flatMap((entry) => (entry.acceptance === null ? [] : [{ ...entry, acceptance: entry.acceptance }]))

const acceptanceTable = (entries: ReadonlyArray<Accepting>): string =>
  grid(
    [
      "strategy",
      "variant",
      "GiB",
      "time\nper GiB",
      "calls",
      "switches",
      "in\nswitches",
      "in page\nstates",
      "4K after\n2M"
    ],
    [2, 3, 4, 5, 6, 7, 8],
    entries.map(({ strategy, variant, acceptance }) => [
      strategy,
      variant ?? "-",
      (acceptance.bytes / GIB).toFixed(2),
      duration(acceptance.nsPerGib),
      String(acceptance.calls),
      String(acceptance.switches),
      percent(acceptance.switchShare),
      percent(acceptance.pageStateShare),
      String(acceptance.fallbacks)
    ])
  )

/** What the scenario's workload adds to the tables that every comparison has. */
export const workloadSections = (json: ComparisonJson): ReadonlyArray<Section> => {
  const sections: Array<Section> = []
  const pairs = json.results.filter(({ operation }) => operation === "run-vmpl-round-trip")
  if (pairs.some(({ groups }) => groups.length > 1))
    sections.push({ title: "Round trips by caller and called level", table: pairTable(json) })
  if (json.parameters.workload === "ap-boot")
    sections.push({ title: "The first AP create of a boot, and those after it", table: firstTable(json) })
  const entries = accepting(json)
  if (entries.length > 0)
    sections.push({
      title: "Memory acceptance, and the share of the vCPUs' time in VMPL switches and page state changes",
      table: acceptanceTable(entries)
    })
  sections.push({ title: "What the host spends on the guest", table: hostTable(json) })
  return sections
}
