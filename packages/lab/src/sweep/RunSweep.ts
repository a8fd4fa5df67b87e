import { closeSync, existsSync, ftruncateSync, openSync } from "node:fs"
import * as Effect from "effect/Effect"
import { InputInvalid, oneLine } from "../InputInvalid.ts"
import { RunFailed } from "../RunFailed.ts"
import type { Plan } from "./Plan.ts"
import type { Job } from "./Point.ts"
import { inGridOrder, type LineAt, lineText, ResultsInvalid, scanResults, writeAll, writeLines } from "./ResultsFile.ts"
import { runPool } from "./WorkerPool.ts"

/** Part `part` of `parts`, from 1: the points whose index leaves that remainder. */
export interface Shard {
  readonly part: number
  readonly parts: number
}

/** What a sweep needs. */
export interface SweepInput {
  readonly plan: Plan
  readonly out: string
  readonly shard: Shard
  readonly jobs: number
  /** Replaces a results file of another grid or commit instead of refusing it. */
  readonly force: boolean
  readonly worker: URL
  /** Called with the points of this shard that are there, those found included. */
  readonly onProgress: (done: number, total: number) => void
}

/** What came of a sweep. */
export interface SweepDone {
  /** Points of this shard that the file already held, and those run now. */
  readonly found: number
  readonly run: number
  /** A line that was cut off was dropped; its point was run again. */
  readonly torn: boolean
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Node's errors and refused lines as what the command line reports. */
export const onFile = <A>(file: string, use: () => A): Effect.Effect<A, InputInvalid> =>
  Effect.try({
    try: use,
    catch: (error) => {
      const line = error instanceof ResultsInvalid ? error.message : `${file}: ${messageOf(error)}`
      return new InputInvalid({ line: oneLine(line) })
    }
  })

const shardIndices = (plan: Plan, { part, parts }: Shard): ReadonlyArray<number> =>
  Array.from({ length: plan.points }, (_, index) => index).filter((index) => index % parts === part - 1)

/** Why a line does not belong to a plan, or null when it does. */
const strangeness = (plan: Plan, line: LineAt): string | null => {
  if (line.commit !== plan.commit) return `of commit ${line.commit}, expected ${plan.commit}`
  if (line.version !== plan.version) return `of version ${line.version}, expected ${plan.version}`
  if (line.grid !== plan.digest) return "of another grid, expected results of this one"
  if (line.index >= plan.points || plan.at(line.index).id !== line.id) return `of another point ${line.index}`
  return null
}

/**
 * What a results file already holds of a plan. A file that does not exist holds nothing, and so does with `force` one of
 * another grid or commit; a file that no sweep wrote is refused all the same.
 */
export const foundIn = (plan: Plan, file: string, force = false) =>
  onFile(file, () => {
    const nothing = { lines: [], complete: 0, torn: false }
    if (!existsSync(file)) return nothing
    const scan = scanResults(file)
    for (const line of scan.lines) {
      const why = strangeness(plan, line)
      if (why === null) continue
      if (force) return nothing
      const help = "choose another file, or --force to replace this one"
      throw new ResultsInvalid(`${file}: line ${line.line}: ${why}; ${help}`)
    }
    return { ...scan, lines: inGridOrder(scan.lines) }
  })

/** How many points a shard has, and how many of them a list of lines holds. */
export const progressOf = (plan: Plan, shard: Shard, lines: ReadonlyArray<LineAt>) => {
  const indices = shardIndices(plan, shard)
  const there = new Set(lines.map(({ index }) => index))
  return { indices, missing: indices.filter((index) => !there.has(index)) }
}

/**
 * Runs the points of a shard that the file does not hold yet and appends each as one line when it is done; a sweep that
 * was stopped goes on where it was. In the end the file is put in the order of the grid, so that it does not tell how
 * many threads there were or how often it was stopped.
 *
 * @returns InputInvalid for a file that is not this grid's; RunFailed when a point or a thread fails: then everything
 *   that was done stands in the file
 */
export const runSweep = Effect.fnUntraced(function* (input: SweepInput) {
  const { plan, out, shard, jobs, force, worker, onProgress } = input
  const found = yield* foundIn(plan, out, force)
  const { indices, missing } = progressOf(plan, shard, found.lines)
  let done = indices.length - missing.length
  onProgress(done, indices.length)

  const append = yield* onFile(out, () => {
    const fd = openSync(out, "a")
    ftruncateSync(fd, found.complete)
    return fd
  })
  const waiting = missing[Symbol.iterator]()
  const next = (): Job | null => {
    const { value, done: none } = waiting.next()
    if (none === true) return null
    const { index, scenario, profile, seed } = plan.at(value)
    return { index, scenario: { ...scenario }, profile, strategies: plan.strategies, seed }
  }
  yield* runPool({
    worker,
    size: Math.min(jobs, missing.length),
    next,
    done: ({ index, outcome }) => {
      writeAll(append, new TextEncoder().encode(lineText(plan, plan.at(index), outcome)))
      done += 1
      onProgress(done, indices.length)
    },
    nameOf: ({ index }) => `point ${index}, ${JSON.stringify(plan.at(index).parameters)}`
  }).pipe(Effect.ensuring(Effect.sync(() => closeSync(append))))

  yield* Effect.try({
    try: () => {
      const { lines } = scanResults(out)
      const ordered = inGridOrder(lines)
      if (ordered.length < lines.length || lines.some((line, i) => line !== ordered[i])) writeLines(out, ordered)
    },
    catch: (error) => new RunFailed({ why: `${out}: ${messageOf(error)}` })
  })
  const outcome: SweepDone = { found: indices.length - missing.length, run: missing.length, torn: found.torn }
  return outcome
})
