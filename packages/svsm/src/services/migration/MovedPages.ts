import { createHash } from "node:crypto"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { SvsmState } from "../../State.ts"
import type { Migration, PageVersion } from "./Migration.ts"

/**
 * Whether a page goes along: validated guest memory but for what belongs to a machine. The secrets page holds keys of
 * this launch, the CPUID page is what this host's AMD-SP has checked, the agent has its like on the other side. VMSAs go
 * with the guest's state.
 */
export const isMoved = (state: SvsmState, { own }: Pick<Migration, "own">, gfn: number): boolean => {
  const gpa = gfn * PAGE_SIZE
  const { secretsGpa, cpuidGpa } = state.parameters
  if (!state.validated.has(gfn) || gpa === secretsGpa || gpa === cpuidGpa) return false
  if (gpa >= own.gpa && gpa < own.gpa + own.size) return false
  return !state.registry.some(({ vmsaGpa }) => vmsaGpa === gpa)
}

/** GFNs that go along, in ascending order. */
export const movedPages = (state: SvsmState, migration: Pick<Migration, "own">): ReadonlyArray<number> =>
  [...state.validated.gfns()].filter((gfn) => isMoved(state, migration, gfn)).sort((a, b) => a - b)

/** Pages in a row: the first and how many. */
export type PageRun = readonly [first: number, pages: number]

/** Ascending GFNs as runs. */
export const runsOf = (gfns: ReadonlyArray<number>): ReadonlyArray<PageRun> => {
  const runs: Array<[number, number]> = []
  for (const gfn of gfns) {
    const last = runs.at(-1)
    if (last !== undefined && last[0] + last[1] === gfn) last[1]++
    else runs.push([gfn, 1])
  }
  return runs
}

export const gfnsOf = (runs: ReadonlyArray<PageRun>): ReadonlyArray<number> =>
  runs.flatMap(([first, pages]) => Array.from({ length: pages }, (_, i) => first + i))

export const digestOf = (contents: Uint8Array): Uint8Array =>
  new Uint8Array(createHash("sha256").update(contents).digest())

/** SHA-256 over GFN, rights and digest of pages in their order, hex: all of memory in one number. */
export const memoryDigest = (
  gfns: ReadonlyArray<number>,
  versionOf: (gfn: number) => PageVersion | undefined
): string => {
  const all = createHash("sha256")
  for (const gfn of gfns) {
    const version = versionOf(gfn)
    all.update(`${gfn}:${version?.rights ?? "absent"};`)
    if (version !== undefined) all.update(version.digest)
  }
  return all.digest("hex")
}
