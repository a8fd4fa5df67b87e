import { PRIMITIVES } from "@vmpl-lab/sim"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { parseProfile } from "../src/ProfileFile.ts"
import { profile, profileText } from "./fixture.ts"

interface Draft {
  [key: string]: unknown
  primitives: Record<string, { [key: string]: unknown; quantiles?: Array<Array<number>> }>
  sums: Array<{ [key: string]: unknown }>
}

const lineOf = (json: string): string => {
  const result = parseProfile("mine.json", json)
  return Result.isFailure(result) ? result.failure.line : "accepted"
}

const lineWith = (change: (draft: Draft) => void): string => {
  const draft: Draft = JSON.parse(profileText)
  change(draft)
  return lineOf(JSON.stringify(draft))
}

const cost = (draft: Draft, name: string) => draft.primitives[name]!
const knots = (draft: Draft) => cost(draft, "create_vcpu").quantiles!
const NS = "a whole number of nanoseconds from 0 to 1000000000"
const BASES = '"measured", "published", "assumed"'

describe("the built-in profile", () => {
  it("is one that the simulator takes", () => {
    expect(profile.name).toBe("epyc-9654p")
    expect(Object.keys(profile.primitives).sort()).toEqual([...PRIMITIVES].sort())
  })

  it("calls every price without a source assumed", () => {
    // A guess may be bounded by a source; what is published or measured always has one.
    for (const { basis, source } of Object.values(profile.primitives))
      if (basis !== "assumed") expect(source).not.toBe("none")
  })
})

/** A second sum beside the profile's own. */
const SECOND_SUM = { primitives: [], ns: 0, basis: "assumed", source: "none" }

describe("a profile that is wrong gives one line with file, place, value and what was expected", () => {
  const cases: ReadonlyArray<readonly [what: string, change: (draft: Draft) => void, line: string]> = [
    ["a missing primitive", (draft) => delete draft.primitives.ioctl, "primitives.ioctl: missing, expected this key"],
    ["a missing part", (draft) => delete draft.sums[0]!.basis, "sums[0].basis: missing, expected this key"],
    [
      "an unknown primitive",
      (draft) => {
        draft.primitives.bogus = {}
      },
      `primitives.bogus: unknown key with value {}, expected only the ${PRIMITIVES.length} known keys`
    ],
    [
      "a sum whose low end is above it",
      (draft) => {
        draft.sums[0]!.low = 2966
      },
      "sums[0].low: expected at most ns, 2965, got 2966"
    ],
    [
      "a sum whose high end is below it",
      (draft) => {
        draft.sums[0]!.high = 2964
      },
      "sums[0].high: expected at least ns, 2965, got 2964"
    ],
    [
      "a clock in GHz",
      (draft) => {
        draft.clockMhz = 2.4
      },
      "clockMhz: expected a whole number of MHz from 100 to 100000, got 2.4"
    ],
    [
      "an unknown key",
      (draft) => {
        draft.extra = "two\nlines"
      },
      'extra: unknown key with value "two\\nlines", expected only name, machine, clockMhz, note, primitives, sums'
    ],
    [
      "a negative price",
      (draft) => {
        cost(draft, "ioctl").ns = -1
      },
      `primitives.ioctl.ns: expected ${NS}, got -1`
    ],
    [
      "a fraction",
      (draft) => {
        cost(draft, "ioctl").ns = 1.5
      },
      `primitives.ioctl.ns: expected ${NS}, got 1.5`
    ],
    [
      "a text",
      (draft) => {
        cost(draft, "ioctl").high = "142"
      },
      `primitives.ioctl.high: expected ${NS}, got "142"`
    ],
    [
      "low above ns",
      (draft) => {
        cost(draft, "ioctl").low = 143
      },
      "primitives.ioctl.low: expected at most ns, 142, got 143"
    ],
    [
      "high below ns",
      (draft) => {
        cost(draft, "ioctl").high = 141
      },
      "primitives.ioctl.high: expected at least ns, 142, got 141"
    ],
    [
      "a probability below its range",
      (draft) => {
        cost(draft, "srcu_grace_period").probability = { permille: 10, low: 11, high: 20 }
      },
      "primitives.srcu_grace_period.probability.low: expected at most permille, 10, got 11"
    ],
    [
      "a probability above certainty",
      (draft) => {
        cost(draft, "srcu_grace_period").probability = { permille: 10, low: 0, high: 1001 }
      },
      "primitives.srcu_grace_period.probability.high: expected a whole permille from 0 to 1000, got 1001"
    ],
    [
      "an unknown basis",
      (draft) => {
        cost(draft, "ioctl").basis = "guess"
      },
      `primitives.ioctl.basis: expected one of ${BASES}, got "guess"`
    ],
    [
      "no source",
      (draft) => {
        cost(draft, "ioctl").source = ""
      },
      'primitives.ioctl.source: expected a text that is not empty and has no control characters, got ""'
    ],
    [
      "no knots",
      (draft) => {
        cost(draft, "create_vcpu").quantiles = []
      },
      "primitives.create_vcpu.quantiles: expected knots from permille 0 to permille 1000, got []"
    ],
    [
      "knots that start late",
      (draft) => {
        knots(draft)[0]![0] = 1
      },
      "primitives.create_vcpu.quantiles[0][0]: expected permille 0 in the first knot, got 1"
    ],
    [
      "knots that end early",
      (draft) => knots(draft).pop(),
      "primitives.create_vcpu.quantiles[4][0]: expected permille 1000 in the last knot, got 990"
    ],
    [
      "permille that stand still",
      (draft) => {
        knots(draft)[1]![0] = 0
      },
      "primitives.create_vcpu.quantiles[1][0]: expected a permille above the 0 before it, got 0"
    ],
    [
      "falling times",
      (draft) => {
        knots(draft)[3]![1] = 45_999
      },
      "primitives.create_vcpu.quantiles[3][1]: expected at least the 46000 ns before it, got 45999"
    ],
    [
      "a fractional knot",
      (draft) => {
        knots(draft)[1]![1] = 0.5
      },
      `primitives.create_vcpu.quantiles[1][1]: expected ${NS}, got 0.5`
    ],
    [
      "a median that is not ns",
      (draft) => {
        knots(draft)[2]![1] = 47_000
      },
      "primitives.create_vcpu.ns: expected the median of quantiles, 47000, got 46000"
    ],
    [
      "a sum that does not add up",
      (draft) => {
        draft.sums[0]!.ns = 2966
      },
      "sums[0].ns: expected 2965, what its primitives add up to, got 2966"
    ],
    [
      "a sum that names a primitive twice",
      (draft) => {
        draft.sums[1] = { ...SECOND_SUM, primitives: ["ioctl", "ioctl"] }
      },
      'sums[1].primitives[1]: expected a primitive that no sum names before this, got "ioctl"'
    ],
    [
      "a primitive in two sums",
      (draft) => {
        draft.sums[1] = { ...SECOND_SUM, primitives: ["ioctl", "kvm_dispatch"], ns: 1307 }
      },
      'sums[1].primitives[1]: expected a primitive that no sum names before this, got "kvm_dispatch"'
    ],
    [
      "a sum of one",
      (draft) => {
        draft.sums[1] = { ...SECOND_SUM, primitives: ["ioctl"] }
      },
      'sums[1].primitives: expected at least two primitives, got ["ioctl"]'
    ],
    [
      "a sum of strangers",
      (draft) => {
        draft.sums[1] = { ...SECOND_SUM, primitives: ["ioctl", "bogus"] }
      },
      'sums[1].primitives[1]: expected the name of a primitive, got "bogus"'
    ]
  ]
  it.each(cases)("%s", (_what, change, line) => {
    expect(lineWith(change)).toBe(`mine.json: ${line}`)
  })

  it.each([
    ["not finite", '"ns": 1e999', `primitives.ioctl.ns: expected ${NS}, got Infinity`],
    ["a key given twice", '"ns": 142, "ns": 142', "primitives.ioctl.ns: key given twice, expected once"]
  ])("%s", (_what, replacement, line) => {
    expect(lineOf(profileText.replace('"ns": 142', replacement))).toBe(`mine.json: ${line}`)
  })

  it.each(["", "{", '{"name": "a",\n\n}', profileText.replace('"ns": 142', '"ns": NaN')])("no JSON: %.10j", (text) => {
    expect(lineOf(text)).toMatch(/^mine\.json: not valid JSON: [^\n]+$/)
  })

  it.each(["null", "[]", "5"])("no object: %s", (text) => {
    expect(lineOf(text)).toBe(
      `mine.json: expected a profile: an object with name, machine, primitives and sums, got ${text}`
    )
  })
})
