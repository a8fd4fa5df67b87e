import { createHash, randomUUID } from "node:crypto"
import { closeSync, fsyncSync, openSync, readSync, renameSync, rmSync, writeSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import type { Plan, Point } from "./Plan.ts"
import type { PointOutcome } from "./Point.ts"

// Lines of a results file begin like this. What begins otherwise was not written by a sweep and is left alone.
const FORMAT = 1
const BEGIN = `{"sweep":${FORMAT},"id":"`

/** A point's line: which point of which grid, and what came of it. Equal points give equal lines. */
export interface PointLine extends PointOutcome {
  readonly sweep: typeof FORMAT
  readonly id: string
  readonly grid: string
  readonly index: number
  /** Points of the whole grid. */
  readonly points: number
  readonly commit: string
  readonly version: string
  readonly parameters: Point["parameters"]
}

/** Where a line stands, and what is needed to sort and compare it. */
export interface LineAt extends Pick<PointLine, "id" | "grid" | "index" | "points" | "commit" | "version"> {
  readonly file: string
  /** From 1. */
  readonly line: number
  readonly offset: number
  /** Bytes, line feed included. */
  readonly bytes: number
  readonly sha256: string
}

/** A results file as it was found. */
export interface Scan {
  readonly lines: ReadonlyArray<LineAt>
  /** Bytes of the complete lines. What follows is the beginning of a line that was never finished. */
  readonly complete: number
  readonly torn: boolean
}

/** A results file cannot be used; the message names file and line. */
export class ResultsInvalid extends Error {}

/** The text of one line, line feed included. */
export const lineText = (plan: Plan, { index, id, parameters }: Point, outcome: PointOutcome): string => {
  const { digest, points, commit, version } = plan
  const line: PointLine = { sweep: FORMAT, id, grid: digest, index, points, commit, version, parameters, ...outcome }
  return `${JSON.stringify(line)}\n`
}

const isText = (value: unknown): value is string => typeof value === "string"
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0

const lineAt = (file: string, line: number, offset: number, content: Buffer): LineAt => {
  const refuse = (why: string) => new ResultsInvalid(`${file}: line ${line}: ${why}, expected a line written by sweep`)
  const text = content.toString("utf8")
  if (!text.startsWith(BEGIN)) throw refuse("something else")
  let value: { readonly [key: string]: unknown }
  try {
    value = JSON.parse(text)
  } catch {
    throw refuse("not valid JSON")
  }
  const { id, grid, index, points, commit, version } = value
  if (!isText(id) || !isText(grid) || !isText(commit) || !isText(version) || !isCount(index) || !isCount(points)) {
    throw refuse("keys missing")
  }
  const sha256 = createHash("sha256").update(content).digest("hex")
  return { file, line, offset, bytes: content.length + 1, sha256, id, grid, index, points, commit, version }
}

const CHUNK = 1 << 20
const LINE_FEED = 0x0a

/**
 * Reads a results file without keeping its lines.
 *
 * @throws ResultsInvalid for a line that no sweep wrote; Node's error when the file cannot be read
 */
export const scanResults = (file: string): Scan => {
  const fd = openSync(file, "r")
  try {
    const lines: Array<LineAt> = []
    let rest = Buffer.alloc(0)
    let complete = 0
    for (;;) {
      const chunk = Buffer.alloc(CHUNK)
      const length = readSync(fd, chunk, 0, CHUNK, null)
      if (length === 0) break
      rest = Buffer.concat([rest, chunk.subarray(0, length)])
      for (let end = rest.indexOf(LINE_FEED); end !== -1; end = rest.indexOf(LINE_FEED)) {
        lines.push(lineAt(file, lines.length + 1, complete, rest.subarray(0, end)))
        complete += end + 1
        rest = rest.subarray(end + 1)
      }
    }
    const torn = rest.toString("utf8")
    if (!torn.startsWith(BEGIN.slice(0, torn.length))) {
      const why = `${file}: line ${lines.length + 1}: something else, expected a line written by sweep`
      throw new ResultsInvalid(why)
    }
    return { lines, complete, torn: rest.length > 0 }
  } finally {
    closeSync(fd)
  }
}

/**
 * One line for each point, in the order of the grid. Lines that say the same count once.
 *
 * @throws ResultsInvalid for two lines that say different things about one point
 */
export const inGridOrder = (lines: ReadonlyArray<LineAt>): ReadonlyArray<LineAt> => {
  const byIndex = new Map<number, LineAt>()
  for (const line of lines) {
    const before = byIndex.get(line.index)
    if (before === undefined) byIndex.set(line.index, line)
    else if (before.sha256 !== line.sha256) {
      const what = `point ${line.index} differs from ${before.file}: line ${before.line}, expected equal results`
      throw new ResultsInvalid(`${line.file}: line ${line.line}: ${what}`)
    }
  }
  return [...byIndex.values()].sort((a, b) => a.index - b.index)
}

/** Writes all bytes at the file's position. */
export const writeAll = (fd: number, content: Uint8Array): void => {
  for (let at = 0; at < content.length; ) at += writeSync(fd, content, at)
}

/** Text of one line as it stands in its file, line feed included. */
export const readLineAt = (fd: number, { offset, bytes }: LineAt): Buffer => {
  const content = Buffer.alloc(bytes)
  for (let at = 0; at < bytes; ) {
    const length = readSync(fd, content, at, bytes - at, offset + at)
    if (length === 0) throw new Error("the file became shorter while it was read")
    at += length
  }
  return content
}

/** Calls `visit` with each line's text, in the order given. */
export const forEachLine = (lines: ReadonlyArray<LineAt>, visit: (content: Buffer) => void): void => {
  const open = new Map<string, number>()
  try {
    for (const line of lines) {
      const fd = open.get(line.file) ?? openSync(line.file, "r")
      open.set(line.file, fd)
      visit(readLineAt(fd, line))
    }
  } finally {
    for (const fd of open.values()) closeSync(fd)
  }
}

/** Writes lines of other files, or of the same, as a file that appears whole or not at all. */
export const writeLines = (file: string, lines: ReadonlyArray<LineAt>): void => {
  const part = join(dirname(file), `.${basename(file)}.${randomUUID()}.part`)
  const fd = openSync(part, "wx")
  try {
    try {
      forEachLine(lines, (content) => writeAll(fd, content))
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(part, file)
  } catch (error) {
    rmSync(part, { force: true })
    throw error
  }
}
