import { GUEST_BUFFER_COST, MIGRATION_COST } from "@vmpl-lab/svsm"
import { grid } from "../Grid.ts"
import type { ClientLevels } from "../tpm/ClientWork.ts"
import { duration } from "../Units.ts"
import { HANDLER_COST } from "./Capabilities.ts"
import type { FuzzRecord, ServiceLatency, ServiceRun } from "./RunService.ts"

/** Latencies, one row for each call and strategy; the protocol stands with it where there are several. */
export const latencyTable = (rows: ReadonlyArray<ServiceLatency>): string => {
  const hasProtocols = new Set(rows.map(({ protocol }) => protocol)).size > 1
  const lead = hasProtocols ? ["protocol"] : []
  const head = [...lead, "call", "strategy", "samples", "p50", "switch", "service", "result"]
  const numbers = [2, 3, 4, 5].map((column) => column + lead.length)
  const cells = inOrder(rows).map(({ protocol, call, strategy, samples, ns, switchNs, serviceNs, results }) => [
    ...(hasProtocols ? [protocol] : []),
    call,
    strategy,
    String(samples),
    ...[ns, switchNs, serviceNs].map(duration),
    results.join(", ")
  ])
  return grid(head, numbers, cells)
}

/** Calls together, strategies in the order in which they ran. */
const inOrder = (rows: ReadonlyArray<ServiceLatency>): ReadonlyArray<ServiceLatency> => {
  const calls = new Map<string, Array<ServiceLatency>>()
  for (const row of rows) {
    const key = JSON.stringify([row.protocol, row.call])
    calls.set(key, [...(calls.get(key) ?? []), row])
  }
  return [...calls.values()].flat()
}

/** What the numbers rest on. */
export const latencyNotes = (): string =>
  [
    "Simulated, not measured: virtual time from the guest's call to its return, of which switch is the round trip.",
    "Service: what the SVSM does, of its instructions at the profile's prices. Beside them, assumed: what a handler says,",
    `  ${GUEST_BUFFER_COST.MAP_PAGE} ns for each guest page and ${GUEST_BUFFER_COST.COPY_KIB} ns for each KiB copied, ${HANDLER_COST.RANDOM_8_BYTES} ns for 8 random bytes, ${HANDLER_COST.SECRET} ns for a secret;`,
    "  of others: a TPM's own work, measured on swtpm, and the AMD-SP's on a message, which is the profile's. Loads and",
    "  stores of the SVSM's own are free, and so is its hashing, but for migration's:",
    `  ${MIGRATION_COST.SEAL_KIB} ns to seal or open a KiB, ${MIGRATION_COST.HASH_KIB} ns to hash one, ${duration(MIGRATION_COST.KEY_AGREEMENT)} for half of a key agreement, ${duration(MIGRATION_COST.CHECK_REPORT)} to check a report.`,
    "  Migration's calls are those of whole migrations, at most 3 of each kind; PARK's time is up to the SVSM's last store."
  ].join("\n")

const fuzzLine = ({ strategy, calls, results }: FuzzRecord): string => {
  const parts = Object.entries(results)
    .sort(([, a], [, b]) => b - a)
    .map(([result, count]) => `${count} ${result}`)
  return `  ${strategy}: ${calls} random calls, all answered: ${parts.join(", ")}`
}

/** A run as text. */
export const serviceText = (name: string, { vmpl, serviceVmpl }: ClientLevels, { latency, fuzz }: ServiceRun): string =>
  [
    `Latency of the calls of ${name} at VMPL${serviceVmpl}, from VMPL${vmpl}`,
    latencyTable(latency),
    "",
    latencyNotes(),
    ...(fuzz.length === 0 ? [] : ["Fuzzing:", ...fuzz.map(fuzzLine)])
  ].join("\n")
