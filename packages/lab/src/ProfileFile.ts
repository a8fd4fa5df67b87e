import { fileURLToPath } from "node:url"
import { PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { isPath, readInputText } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { decodeJsonText } from "./JsonText.ts"

/** A single cost above one second is a mistake of unit; the bound also keeps sums of many of them exact integers. */
const NS_MAX = 1_000_000_000

const PRINTABLE = "a text that is not empty and has no control characters"
const text = Schema.String.annotate({ expected: PRINTABLE }).check(
  Schema.makeFilter((value) => /^\P{C}+$/u.test(value), { expected: PRINTABLE })
)

const wholeNumber = (maximum: number, expected: string) =>
  Schema.Number.annotate({ expected }).check(
    Schema.makeFilter((n) => Number.isInteger(n) && n >= 0 && n <= maximum, { expected })
  )

const nanoseconds = wholeNumber(NS_MAX, `a whole number of nanoseconds from 0 to ${NS_MAX}`)
const megahertz = wholeNumber(100_000, "a whole number of MHz from 100 to 100000").check(
  Schema.makeFilter((mhz) => mhz >= 100, { expected: "a whole number of MHz from 100 to 100000" })
)
const permille = wholeNumber(1_000, "a whole permille from 0 to 1000")
const basis = Schema.Literals(["measured", "published", "assumed"])
const primitiveName = Schema.Literals(PRIMITIVES).annotate({ expected: "the name of a primitive" })
const knots = Schema.Array(
  Schema.Tuple([permille, nanoseconds]).annotate({ expected: "a pair [permille, ns]" })
).annotate({ expected: "a list of pairs [permille, ns]" })

type Trouble = { readonly path: ReadonlyArray<PropertyKey>; readonly issue: string }
type Knots = (typeof knots)["Type"]

/** Value at the middle of the distribution, by the integer interpolation that the simulator samples with. */
const medianOf = (points: Knots): number => {
  const k = points.findIndex(([p]) => p >= 500)
  const [p1, ns1] = points[k]!
  if (p1 === 500) return ns1
  const [p0, ns0] = points[k - 1]!
  return ns0 + Math.floor(((ns1 - ns0) * (500 - p0)) / (p1 - p0))
}

const knotTrouble = (points: Knots, ns: number): Trouble | undefined => {
  const first = points[0]
  const last = points.at(-1)
  if (first === undefined || last === undefined) {
    return { path: ["quantiles"], issue: "knots from permille 0 to permille 1000" }
  }
  if (first[0] !== 0) return { path: ["quantiles", 0, 0], issue: "permille 0 in the first knot" }
  for (let k = 1; k < points.length; k++) {
    const [p0, ns0] = points[k - 1]!
    const [p1, ns1] = points[k]!
    if (p1 <= p0) return { path: ["quantiles", k, 0], issue: `a permille above the ${p0} before it` }
    if (ns1 < ns0) return { path: ["quantiles", k, 1], issue: `at least the ${ns0} ns before it` }
  }
  if (last[0] !== 1_000) return { path: ["quantiles", points.length - 1, 0], issue: "permille 1000 in the last knot" }
  const median = medianOf(points)
  // `ns` is the median by definition. Were they to differ, changing `ns` alone would silently change nothing.
  if (median !== ns) return { path: ["ns"], issue: `the median of quantiles, ${median}` }
  return undefined
}

const probability = Schema.Struct({ permille, low: permille, high: permille }).annotate({
  expected: "a probability: an object with permille, low and high"
})

const CostSchema = Schema.Struct({
  ns: nanoseconds,
  low: nanoseconds,
  high: nanoseconds,
  basis,
  source: text,
  quantiles: Schema.optionalKey(knots),
  probability: Schema.optionalKey(probability),
  note: Schema.optionalKey(text)
})
  .annotate({ expected: "a cost: an object with ns, low, high, basis and source" })
  .check(
    Schema.makeFilter((cost): Trouble | undefined => {
      if (cost.low > cost.ns) return { path: ["low"], issue: `at most ns, ${cost.ns}` }
      if (cost.high < cost.ns) return { path: ["high"], issue: `at least ns, ${cost.ns}` }
      if (cost.probability !== undefined) {
        const { permille, low, high } = cost.probability
        if (low > permille) return { path: ["probability", "low"], issue: `at most permille, ${permille}` }
        if (high < permille) return { path: ["probability", "high"], issue: `at least permille, ${permille}` }
      }
      return cost.quantiles === undefined ? undefined : knotTrouble(cost.quantiles, cost.ns)
    })
  )

const SumSchema = Schema.Struct({
  primitives: Schema.Array(primitiveName),
  ns: nanoseconds,
  low: Schema.optionalKey(nanoseconds),
  high: Schema.optionalKey(nanoseconds),
  basis,
  source: text,
  note: Schema.optionalKey(text)
}).annotate({ expected: "a sum: an object with primitives, ns, basis and source" })

const costs = Object.fromEntries(PRIMITIVES.map((name) => [name, CostSchema])) as {
  readonly [K in PrimitiveName]: typeof CostSchema
}

/** The file as it stands on disk: the interface Profile of the simulator, plus notes for the reader. */
export const ProfileSchema = Schema.Struct({
  name: text,
  machine: text,
  clockMhz: Schema.optionalKey(megahertz),
  note: Schema.optionalKey(text),
  primitives: Schema.Struct(costs).annotate({ expected: "an object with one cost per primitive" }),
  sums: Schema.Array(SumSchema)
})
  .annotate({ expected: "a profile: an object with name, machine, primitives and sums" })
  .check(
    Schema.makeFilter((profile): Trouble | undefined => {
      // A spin loop must let time pass, or the simulation would spin in it for ever.
      if (profile.primitives.guest_pause.ns === 0) {
        return { path: ["primitives", "guest_pause", "ns"], issue: "at least 1" }
      }
      const taken = new Set<string>()
      for (const [s, sum] of profile.sums.entries()) {
        if (sum.primitives.length < 2) return { path: ["sums", s, "primitives"], issue: "at least two primitives" }
        for (const [p, name] of sum.primitives.entries()) {
          // Two sums over one primitive would leave it open which of them its time counts with.
          if (taken.has(name)) {
            return { path: ["sums", s, "primitives", p], issue: "a primitive that no sum names before this" }
          }
          taken.add(name)
        }
        const parts = sum.primitives.reduce((ns, name) => ns + profile.primitives[name].ns, 0)
        if (sum.low !== undefined && sum.low > sum.ns)
          return { path: ["sums", s, "low"], issue: `at most ns, ${sum.ns}` }
        if (sum.high !== undefined && sum.high < sum.ns) {
          return { path: ["sums", s, "high"], issue: `at least ns, ${sum.ns}` }
        }
        if (parts !== sum.ns) return { path: ["sums", s, "ns"], issue: `${parts}, what its primitives add up to` }
      }
      return undefined
    })
  )

/** A profile's text to a profile; `file` is how the error line calls it. */
export const parseProfile = (file: string, json: string): Result.Result<Profile, InputInvalid> =>
  decodeJsonText(ProfileSchema, file, json)

// Built-in profiles stay JSON files that can be copied and edited: beside the bundle in a published package, where the
// build puts a copy, and at the root of the checkout.
const FOLDERS = ["./profiles/", "../../../profiles/"].map((folder) => fileURLToPath(new URL(folder, import.meta.url)))

/** Names and files of the built-in profiles, sorted by name. */
const builtIns = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  for (const folder of FOLDERS) {
    const files = yield* fs.readDirectory(folder).pipe(Effect.orElseSucceed(() => []))
    const found = files.filter((file) => file.endsWith(".json")).sort()
    if (found.length > 0) return found.map((file) => ({ name: file.slice(0, -".json".length), path: folder + file }))
  }
  return []
})

/**
 * A profile by name (`epyc-9654p`) or by path (anything with a slash, or ending in `.json`), from that flag.
 *
 * @returns InputInvalid for an unknown name, an unreadable file, or contents that are not a profile.
 */
export const loadProfile = Effect.fn("loadProfile")(function* (nameOrPath: string, flag = "profile") {
  if (isPath(nameOrPath)) return yield* parseFile(nameOrPath, nameOrPath)
  const known = yield* builtIns
  const found = known.find((profile) => profile.name === nameOrPath)
  if (found !== undefined) return yield* parseFile(found.path, `profiles/${found.name}.json`)
  const names = known.map((profile) => profile.name).join(", ")
  return yield* new InputInvalid({
    line: oneLine(`--${flag}: ${JSON.stringify(nameOrPath)} unknown, expected ${names} or the path of a JSON file`)
  })
})

const parseFile = (path: string, shownAs: string) =>
  Effect.flatMap(readInputText(path), (json) => Effect.fromResult(parseProfile(shownAs, json)))
