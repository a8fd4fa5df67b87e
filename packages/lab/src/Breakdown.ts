import { type Basis, PRIMITIVE, PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import type { OperationRecord } from "./ComparisonRun.ts"

/** Where a part of an operation's mean latency went. */
export interface BreakdownRow {
  /** A primitive; several joined by " + " where only their sum is known; or `core_wait`. */
  readonly primitive: string
  /** Mean virtual nanoseconds in one operation. */
  readonly ns: number
  readonly basis: Basis
  readonly source: string
}

/**
 * Name of the time a runnable thread waited for a core that another thread held. It has no price of its own: it follows
 * from all others, so it counts as assumed.
 */
export const CORE_WAIT_ROW = "core_wait"

/**
 * Splits an operation's mean latency by what it was charged for. Where a profile gives the sum of some primitives and
 * a path took all of them, as many complete sets as there are become one row with the basis of the sum; what is left
 * over keeps the basis of the primitive. Rows come longest first and add up to the mean; no samples, no rows.
 */
export const breakdown = (record: OperationRecord, profile: Profile): ReadonlyArray<BreakdownRow> => {
  const samples = record.ns.length
  if (samples === 0) return []
  const ns = [...record.nsByPrimitive]
  const rows: Array<BreakdownRow> = []
  const push = (primitive: string, total: number, basis: Basis, source: string) => {
    if (total > 0) rows.push({ primitive, ns: total / samples, basis, source })
  }

  for (const sum of profile.sums) {
    const charged = (name: PrimitiveName) => record.countByPrimitive[PRIMITIVE[name]] ?? 0
    const sets = Math.min(...sum.primitives.map(charged))
    if (sets === 0) continue
    let total = 0
    for (const name of sum.primitives) {
      // The set's share of what was really charged: exact for a constant price, in proportion for a spread one.
      const whole = ns[PRIMITIVE[name]] ?? 0
      const part = sets === charged(name) ? whole : (whole * sets) / charged(name)
      ns[PRIMITIVE[name]]! -= part
      total += part
    }
    push(sum.primitives.join(" + "), total, sum.basis, sum.source)
  }
  for (const name of PRIMITIVES) {
    push(name, ns[PRIMITIVE[name]] ?? 0, profile.primitives[name].basis, profile.primitives[name].source)
  }
  push(CORE_WAIT_ROW, ns[PRIMITIVES.length] ?? 0, "assumed", "simulated")
  return rows.sort((a, b) => b.ns - a.ns || (a.primitive < b.primitive ? -1 : 1))
}

/** Share of the rows' time, from 0 to 1, that rests on assumed costs; null without any time. */
export const assumedShare = (rows: ReadonlyArray<BreakdownRow>): number | null => {
  let all = 0
  let assumed = 0
  for (const row of rows) {
    all += row.ns
    if (row.basis === "assumed") assumed += row.ns
  }
  return all === 0 ? null : assumed / all
}
