import type { CoconutPanic } from "@vmpl-lab/svsm"
import type { HostBytesRow } from "./HostBytes.ts"
import type { Machine } from "./Machine.ts"

const GIB = 2 ** 30

/** What the host spent on the guest. */
export interface HostRecord {
  /** Core time of all host threads per SVSM call, once all vCPUs were up; null without calls. */
  readonly cpuNsPerCall: number | null
  /** Time that vCPU threads were runnable but waited for a core. */
  readonly stolenNs: number
  /** Host memory per guest vCPU, beside the guest's own pages. */
  readonly bytesPerVcpu: number
  readonly bytes: ReadonlyArray<HostBytesRow>
}

/** How the guest came up, over all boots: from LAUNCH_FINISH until every level of every vCPU had run. */
export interface BootRecord {
  readonly allUpNs: ReadonlyArray<number>
  /** AP creates by what was asked for: the first of each boot, and those after it. */
  readonly apCreate: ReadonlyArray<{
    readonly name: string
    readonly firstNs: ReadonlyArray<number>
    readonly laterNs: ReadonlyArray<number>
  }>
}

/** The memory that the guest has accepted, all vCPUs together. */
export interface AcceptanceRecord {
  readonly bytes: number
  /** From when the first vCPU began until the last one was done. */
  readonly ns: number
  readonly nsPerGib: number
  readonly calls: number
  readonly switches: number
  /** Of the time that the vCPUs spent on it together: VMPL switches, and page state changes. */
  readonly switchShare: number
  readonly pageStateShare: number
  /** 2 MiB entries that had to be done as 4 KiB ones. */
  readonly fallbacks: number
}

/** Where COCONUT-SVSM would have stopped the guest that this SVSM answered, and how often, over all boots. */
export interface PanicRecord {
  readonly why: CoconutPanic
  readonly times: number
}

/** Boots as they come in, one machine each. */
export class BootTotals {
  readonly #allUpNs: Array<number> = []
  readonly #groups = new Map<string, { readonly firstNs: Array<number>; readonly laterNs: Array<number> }>()

  readonly #panics = new Map<CoconutPanic, number>()

  add({ log, meter, launchedAt, svsm }: Machine): void {
    for (const [why, times] of svsm.panics) this.#panics.set(why, (this.#panics.get(why) ?? 0) + times)
    if (log.upNs >= 0) this.#allUpNs.push(log.upNs - launchedAt)
    for (const [name, [first, ...later]] of meter.apCreateGroups) {
      const group = this.#groups.get(name) ?? { firstNs: [], laterNs: [] }
      group.firstNs.push(first!)
      for (const ns of later) group.laterNs.push(ns)
      this.#groups.set(name, group)
    }
  }

  panics(): ReadonlyArray<PanicRecord> {
    return [...this.#panics].map(([why, times]) => ({ why, times }))
  }

  record(): BootRecord {
    const apCreate = [...this.#groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, ns]) => ({ name, ...ns }))
    return { allUpNs: this.#allUpNs, apCreate }
  }
}

/** Acceptance as the vCPUs told it; null when nothing was accepted. */
export const acceptanceRecord = ({ log }: Machine): AcceptanceRecord | null => {
  const shares = log.shares.filter(({ bytes }) => bytes > 0)
  if (shares.length === 0) return null
  const total = (of: (share: (typeof shares)[number]) => number): number =>
    shares.reduce((sum, share) => sum + of(share), 0)
  const spent = total(({ beginNs, endNs }) => endNs - beginNs)
  const bytes = total((share) => share.bytes)
  const calls = total((share) => share.calls)
  const ns = Math.max(...shares.map(({ endNs }) => endNs)) - Math.min(...shares.map(({ beginNs }) => beginNs))
  return {
    bytes,
    ns,
    nsPerGib: (ns * GIB) / bytes,
    calls,
    switches: total((share) => share.switches),
    switchShare: total((share) => share.switchNs) / spent,
    pageStateShare: total((share) => share.pageStateNs) / spent,
    fallbacks: total((share) => share.fallbacks)
  }
}
