import { GUEST_BUFFER_COST, MIGRATION_COST } from "@vmpl-lab/svsm"
import { grid } from "../Grid.ts"
import { duration, percent } from "../Units.ts"
import { wrap } from "../Wrap.ts"
import { SCAN_LEAF_NS } from "./HostTracking.ts"
import type { MigrationRun } from "./MigrationRun.ts"

/** What a table says beside its rows. */
export interface MigrateHead {
  readonly pages: number
  readonly vcpus: number
  readonly writeRate: number
  readonly bandwidthMbit: number
  readonly latencyUs: number
  readonly trustHost: boolean
  readonly profile: string
  readonly seed: number
}

const mib = (bytes: number): string => (bytes / 0x10_0000).toFixed(1)

const sentPages = ({ rounds, lastPages }: MigrationRun): number =>
  rounds.reduce((sum, { pages }) => sum + pages, lastPages)

/** How much less the guest wrote while it was moved. */
export const slowDown = ({ writesPerSecond: { before, during } }: MigrationRun): number | null =>
  before === 0 ? null : 1 - during / before

const rows = (runs: ReadonlyArray<MigrationRun>): string =>
  grid(
    ["strategy", "tracking", "rounds", "pages", "faults", "swit-\nches", "sent\nMiB", "slower", "total", "down-\ntime"],
    [2, 3, 4, 5, 6, 7, 8, 9],
    runs.map((run) => [
      run.strategy.replace("/", "/\n"),
      run.tracking === "vmpl-write-right" ? "VMPL\nright" : "nested\ntable",
      String(run.rounds.length),
      String(sentPages(run)),
      String(run.dirtyFaults),
      String(run.switches.source + run.switches.target),
      mib(run.bytes),
      percent(slowDown(run)),
      duration(run.totalNs),
      duration(run.downtimeNs)
    ])
  )

const roundLine = (run: MigrationRun): string => {
  const rounds = run.rounds.map(({ pages }) => pages)
  return `  ${run.strategy}, ${run.tracking}: ${[...rounds, `${run.lastPages} at the stop`].join(", ")}`
}

/** All migrations as text. */
export const migrateText = (head: MigrateHead, runs: ReadonlyArray<MigrationRun>): string => {
  const { pages, vcpus, writeRate, bandwidthMbit, latencyUs, trustHost, profile, seed } = head
  const { SEAL_KIB, HASH_KIB, KEY_AGREEMENT, CHECK_REPORT } = MIGRATION_COST
  return [
    "Live migration of a guest from one simulated machine to another",
    rows(runs),
    "",
    "Pages of each round:",
    ...runs.map(roundLine),
    "",
    wrap(
      "Simulated, not measured: virtual time. Every guest arrived with equal memory, rights and VMSAs, and its work came " +
        "to the same end as on one machine."
    ),
    wrap(
      `Guest: ${vcpus} writing vCPUs with ${writeRate} writes per second each to ${pages} pages of their own, beside ` +
        `those of firmware and boot, and one vCPU for the agent. Profile ${profile}, seed ${seed}.`
    ),
    wrap(
      "Downtime: from the guest's last instruction on the source to its first on the target. Faults: stores that VMPL0 " +
        "gave their right back. Switches: between VMPLs on both machines from the start on, calls of the agent among them. " +
        "Slower: writes per second from the start to the stop, compared with before."
    ),
    wrap(
      `Assumed: a link of ${bandwidthMbit} Mbit/s and ${latencyUs} us each way; ${SEAL_KIB} ns to seal or open a KiB, ` +
        `${HASH_KIB} ns to hash one, ${duration(KEY_AGREEMENT)} for half of a key agreement, ${duration(CHECK_REPORT)} to ` +
        `check a report, ${SCAN_LEAF_NS} ns for the Dirty bit of a nested leaf, ${GUEST_BUFFER_COST.MAP_PAGE} ns to map a page.`
    ),
    wrap(
      trustHost
        ? "Where the host tells which pages are dirty, it is believed: one that leaves a page out goes unnoticed."
        : "The host is not trusted: where it tells which pages are dirty, the SVSM hashes all memory again once the guest " +
            "has stopped, which is part of the downtime."
    )
  ].join("\n")
}
