import { inGridOrder, type LineAt, ResultsInvalid, scanResults } from "./ResultsFile.ts"

/** What merging found. */
export interface Merged {
  /** One line for each point, in the order of the grid. */
  readonly lines: ReadonlyArray<LineAt>
  /** Points of the whole grid. */
  readonly points: number
  /** Files whose last line was cut off, which was left out. */
  readonly torn: ReadonlyArray<string>
}

/**
 * Joins results of one grid. Points that several files hold must be equal and count once.
 *
 * @throws ResultsInvalid for files without lines, of different grids or commits, or that disagree
 */
export const mergeResults = (files: ReadonlyArray<string>): Merged => {
  const scans = files.map((file) => ({ file, scan: scanResults(file) }))
  const all = scans.flatMap(({ scan }) => scan.lines)
  const first = all[0]
  if (first === undefined) throw new ResultsInvalid(`${files.join(", ")}: no results, expected lines written by sweep`)
  for (const line of all) {
    for (const key of ["commit", "version", "grid", "points"] as const) {
      if (line[key] === first[key]) continue
      const what = `${key} ${line[key]}, expected ${first[key]} as in ${first.file}: line ${first.line}`
      throw new ResultsInvalid(`${line.file}: line ${line.line}: ${what}`)
    }
  }
  const torn = scans.filter(({ scan }) => scan.torn).map(({ file }) => file)
  return { lines: inGridOrder(all), points: first.points, torn }
}
