import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readInputFile } from "../InputFile.ts"
import { InputInvalid, oneLine } from "../InputInvalid.ts"
import { decodeJsonText } from "../JsonText.ts"

// A report reads results of any version: what it does not know it leaves alone, or shows as a plain table.
const text = Schema.String.annotate({ expected: "a text" })
const number = Schema.Finite.annotate({ expected: "a number" })
const figure = Schema.NullOr(number).annotate({ expected: "a number or null" })
const variant = Schema.NullOr(Schema.String).annotate({ expected: "a text or null" })
const basis = Schema.Literals(["measured", "published", "assumed"])

const Latency = Schema.Struct({ p50: figure, p90: figure, p99: figure, mean: figure, min: figure, max: figure })

const Result = Schema.Struct({
  strategy: text,
  variant,
  operation: text,
  samples: number,
  ns: Latency,
  perSwitch: Schema.Record(Schema.String, figure),
  breakdown: Schema.Array(Schema.Struct({ primitive: text, ns: number, basis, source: text })),
  assumedShare: figure,
  ratioToFastest: Schema.optionalKey(figure),
  /** 101 nearest-rank percentiles, 0 to 100. */
  distribution: Schema.optionalKey(
    Schema.NullOr(
      Schema.Array(number).check(
        Schema.makeFilter((all) => all.length === 0 || all.length === 101, { expected: "101 percentiles" })
      )
    )
  ),
  groups: Schema.optionalKey(Schema.Array(Schema.Struct({ name: text, samples: number, ns: Latency })))
})

const Step = Schema.Struct({
  atNs: number,
  ns: number,
  lane: Schema.Literals(["guest", "hardware", "KVM", "VMM"]),
  thread: text,
  core: number,
  vmpl: figure,
  label: text,
  onPath: Schema.Boolean
})

const TimelineSchema = Schema.Struct({
  strategy: text,
  variant,
  operation: text,
  ns: number,
  elapsedNs: number,
  steps: Schema.Array(Step),
  handOffs: Schema.Array(Schema.Struct({ fromThread: text, toThread: text, atNs: number }))
})

/** What a reader of `compare --json` may rely on; further keys may be added. */
export const ComparisonSchema = Schema.Struct({
  seed: number,
  commit: text,
  profile: text,
  scenario: text,
  launchDigest: text,
  stateDigest: text,
  machine: Schema.optionalKey(text),
  results: Schema.Array(Result),
  timeline: Schema.optionalKey(Schema.Array(TimelineSchema)),
  strategies: Schema.optionalKey(Schema.Array(Schema.Record(Schema.String, Schema.Unknown)))
}).annotate({ expected: "a result of compare --json" })

/** The same of `sensitivity --json`. */
export const SensitivitySchema = Schema.Struct({
  baseline: Schema.Array(Schema.Struct({ strategy: text, ns: number })),
  knobs: Schema.Array(
    Schema.Struct({
      knob: text,
      low: number,
      high: number,
      basis,
      effects: Schema.Array(Schema.Struct({ strategy: text, low: number, high: number }))
    })
  )
}).annotate({ expected: "a result of sensitivity --json" })

/** One comparison as `compare --json` printed it, with keys that this version does not know. */
export type Comparison = typeof ComparisonSchema.Type
export type ReportResult = typeof Result.Type
export type ReportTimeline = typeof TimelineSchema.Type
export type SensitivityResult = typeof SensitivitySchema.Type

/** One line of a sweep: any object. */
export type SweepPoint = { readonly [key: string]: unknown }

/** What a file turned out to be. */
export type ReportInput =
  | { readonly kind: "comparison"; readonly file: string; readonly comparison: Comparison }
  | { readonly kind: "sensitivity"; readonly file: string; readonly sensitivity: SensitivityResult }
  | { readonly kind: "sweep"; readonly file: string; readonly points: ReadonlyArray<SweepPoint> }

/** A comparison of all strategies with every timeline is well below 1 MiB; a sweep may be long. */
const SIZE_MAX = 64 * 1024 * 1024

const isObject = (value: unknown): value is SweepPoint =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const bad = (file: string, what: string) => new InputInvalid({ line: oneLine(`${file}: ${what}`) })

/** One JSON object a line; the last line may be cut off, as a sweep that was stopped leaves it. */
const sweepPoints = (file: string, content: string) =>
  Effect.gen(function* () {
    const points: Array<SweepPoint> = []
    const lines = content.split("\n")
    for (const [index, line] of lines.entries()) {
      if (line.trim() === "") continue
      let value: unknown
      try {
        value = JSON.parse(line)
      } catch {
        if (index === lines.length - 1) continue
        return yield* bad(file, `line ${index + 1}: not valid JSON, expected one JSON object a line`)
      }
      if (!isObject(value)) return yield* bad(file, `line ${index + 1}: expected one JSON object a line`)
      points.push(value)
    }
    if (points.length === 0) return yield* bad(file, "no line with a JSON object, expected the results of a sweep")
    return points
  })

const parsed = (content: string): unknown => {
  try {
    return JSON.parse(content)
  } catch {
    return undefined
  }
}

/**
 * Reads one result file: a comparison, a sensitivity analysis, or (ending in `.jsonl`) a sweep.
 *
 * @returns InputInvalid for a file that is none of them, with the first trouble
 */
export const readReportInput = Effect.fn("readReportInput")(function* (file: string) {
  const bytes = yield* readInputFile(file, SIZE_MAX)
  const content = new TextDecoder().decode(bytes)
  if (content.trim() === "") return yield* bad(file, "empty, expected a result of compare --json")
  if (/\.(?:jsonl|ndjson)$/i.test(file)) {
    const input: ReportInput = { kind: "sweep", file, points: yield* sweepPoints(file, content) }
    return input
  }
  const raw = parsed(content)
  if (isObject(raw) && "knobs" in raw) {
    const sensitivity = yield* Effect.fromResult(decodeJsonText(SensitivitySchema, file, content, "ignore"))
    const input: ReportInput = { kind: "sensitivity", file, sensitivity }
    return input
  }
  yield* Effect.fromResult(decodeJsonText(ComparisonSchema, file, content, "ignore"))
  // As it was read, with the keys that the schema does not name: they are shown as plain tables.
  const comparison = raw as Comparison
  if (comparison.results.length === 0) return yield* bad(file, "results: expected at least one, got none")
  const input: ReportInput = { kind: "comparison", file, comparison }
  return input
})

/** `key` or `key/variant`, as the command line names a strategy. */
export const nameOf = ({
  strategy,
  variant
}: {
  readonly strategy: string
  readonly variant: string | null
}): string => (variant === null ? strategy : `${strategy}/${variant}`)
