import { GUEST_BUFFER_COST } from "@vmpl-lab/svsm"
import { grid } from "../Grid.ts"
import { duration } from "../Units.ts"
import type { TpmTiming } from "./GuestTpm.ts"
import { TPM_COSTS, TPM_COSTS_SOURCE } from "./TpmCosts.ts"

/** All commands of one name: how many, and the means of their virtual times, ns. */
export interface TpmCommandSummary extends TpmTiming {
  readonly command: string
  readonly count: number
}

/** What passed through a guest's TPM, by command. */
export class TpmLog {
  readonly #commands = new Map<
    string,
    { count: number; ns: number; switchNs: number; serviceNs: number; tpmNs: number }
  >()

  add(command: string, timing: TpmTiming): void {
    const sum = this.#commands.get(command) ?? { count: 0, ns: 0, switchNs: 0, serviceNs: 0, tpmNs: 0 }
    sum.count++
    sum.ns += timing.ns
    sum.switchNs += timing.switchNs
    sum.serviceNs += timing.serviceNs
    sum.tpmNs += timing.tpmNs
    this.#commands.set(command, sum)
  }

  /** By name. */
  summary(): ReadonlyArray<TpmCommandSummary> {
    return [...this.#commands]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([command, { count, ns, switchNs, serviceNs, tpmNs }]) => ({
        command,
        count,
        ns: ns / count,
        switchNs: switchNs / count,
        serviceNs: serviceNs / count,
        tpmNs: tpmNs / count
      }))
  }
}

/** The summary as a table, with what its numbers rest on. */
export const tpmTable = (strategy: string, commands: ReadonlyArray<TpmCommandSummary>): string => {
  const head = ["TPM command", "count", "mean", "switch", "service", "TPM"]
  const rows = commands.map(({ command, count, ns, switchNs, serviceNs, tpmNs }) => [
    command,
    String(count),
    ...[ns, switchNs, serviceNs, tpmNs].map(duration)
  ])
  const costs = Object.entries(TPM_COSTS).map(([name, { ns }]) => `${name} ${duration(ns)}`)
  return [
    `Latency of TPM commands under ${strategy}`,
    rows.length === 0 ? "no commands" : grid(head, [1, 2, 3, 4, 5], rows),
    "",
    "Simulated, not measured: virtual time from the guest's call to its return.",
    `TPM: measured by class of command (${costs.join(", ")}),`,
    `  ${TPM_COSTS_SOURCE}.`,
    `Service: assumed, ${GUEST_BUFFER_COST.MAP_PAGE} ns for each guest page and ${GUEST_BUFFER_COST.COPY_KIB} ns for each KiB copied.`
  ].join("\n")
}
