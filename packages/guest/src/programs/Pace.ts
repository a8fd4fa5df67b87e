import { type Program, rdtsc, TSC_MHZ, work } from "@vmpl-lab/vmpl"

/** The vCPU's TSC, in ns. */
export function* now(): Program<number> {
  const { lo, hi } = yield rdtsc()
  return Math.floor(((hi * 0x1_0000_0000 + lo) * 1_000) / TSC_MHZ)
}

/** Works until the TSC has come to a time, not at all when that has passed. */
export function* workUntil(ns: number): Program {
  const left = ns - (yield* now())
  if (left > 0) yield work(left)
}
