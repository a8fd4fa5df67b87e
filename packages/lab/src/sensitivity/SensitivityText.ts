import { duration, ratio } from "../Units.ts"
import { wrap } from "../Wrap.ts"
import { type Baseline, type KnobEffect, type PairEffect, type Sensitivity, swing } from "./Sensitivity.ts"

/** Columns beside the bar: knob, range, and the medians at both ends. */
const NAME = 28
const RANGE = 18
const MEDIAN = 8
const BAR_MIN = 10

/** `[from, to]` of medians as characters of a bar. */
type Scale = (ns: number) => number

/**
 * A bar from the lowest to the highest of three medians, with the nominal one as its upright stroke. Something that
 * moved is at least one stroke long.
 */
export const bar = (width: number, from: number, to: number, low: number, high: number, base: number): string => {
  const at: Scale = (ns) => (to === from ? 0 : Math.round(((ns - from) / (to - from)) * (width - 1)))
  const first = at(Math.min(low, high, base))
  const last = at(Math.max(low, high, base))
  const text = Array.from({ length: width }, (_, i) => (i === at(base) ? "|" : i >= first && i <= last ? "-" : " "))
  return text.join("")
}

const rangeText = ({ low, high }: KnobEffect): string =>
  high < 1_000_000 ? `${low} to ${high} ns` : `${duration(low)} to ${duration(high)}`

/** One strategy's tornado: its knobs, widest swing first. */
const tornado = (of: Baseline, index: number, { knobs }: Sensitivity, width: number): ReadonlyArray<string> => {
  const rows = knobs
    .map((knob) => ({ knob, effect: knob.effects[index]! }))
    .filter(({ effect }) => swing(effect, of.ns) > 0)
    .toSorted((a, b) => swing(b.effect, of.ns) - swing(a.effect, of.ns))
  const medians = [
    of.ns,
    ...rows.flatMap(({ effect }) => [
      ...(effect.lowDetected ? [effect.low] : []),
      ...(effect.highDetected ? [effect.high] : [])
    ])
  ]
  const from = Math.min(...medians)
  const to = Math.max(...medians)
  const room = Math.max(BAR_MIN, width - NAME - RANGE - 2 * MEDIAN - 4)
  return rows.flatMap(({ knob, effect }) => {
    const [name, ...more] = knob.knob.split(" + ").map((part, i, all) => (i + 1 < all.length ? `${part} +` : part))
    const low = effect.lowDetected ? effect.low : of.ns
    const high = effect.highDetected ? effect.high : of.ns
    const drawn = bar(room, from, to, low, high, of.ns)
    const first = [
      name!.padEnd(NAME),
      rangeText(knob).padStart(RANGE),
      duration(low).padStart(MEDIAN),
      drawn,
      duration(high).padStart(MEDIAN)
    ]
    return [first.join(" "), ...more]
  })
}

const chance = ({ noiseNs }: Baseline): string => (noiseNs === 0 ? "" : `, seeds differ by ${duration(noiseNs)}`)

/** Where a pair's ratio goes furthest, downwards and upwards. */
const pairLine = ({ a, b, ratio: nominal, knobs }: PairEffect): string => {
  const ends = knobs
    .filter(({ detected }) => detected)
    .flatMap(({ knob, ratioLow, ratioHigh }) => [
      { knob, end: "low", value: ratioLow },
      { knob, end: "high", value: ratioHigh }
    ])
  const known = ends.flatMap(({ value, ...where }) => (value === null ? [] : [{ ...where, value }]))
  if (nominal === null) return `${a} / ${b}: -`
  if (known.length === 0) return `${a} / ${b}: ${ratio(nominal)}, whatever moves`
  const least = known.reduce((min, one) => (one.value < min.value ? one : min))
  const most = known.reduce((max, one) => (one.value > max.value ? one : max))
  const part = ({ knob, end, value }: typeof least): string => `${ratio(value)} (${knob} ${end})`
  const range = least.value === most.value ? "whatever moves" : `from ${part(least)} to ${part(most)}`
  return `${a} / ${b}: ${ratio(nominal)}, ${range}`
}

/** The whole text, ending without a line feed. */
export const sensitivityText = (json: Sensitivity, operation: string, width: number): string => {
  const { baseline, knobs, pairs, reversals, withoutEffect } = json
  const fastest = baseline.reduce((best, one) => (one.ns < best.ns ? one : best))
  const lines: Array<string> = []
  for (const [i, one] of baseline.entries()) {
    lines.push(
      `${operation}, ${one.strategy}: median ${duration(one.ns)}${chance(one)}`,
      ...tornado(one, i, json, width),
      ""
    )
  }
  if (baseline.length > 1) {
    lines.push(`Ratios to ${fastest.strategy}, the fastest, as one price at a time moves:`)
    for (const pair of pairs) {
      if (pair.b === fastest.strategy) lines.push(wrap(`- ${pairLine(pair)}`, width))
      else if (pair.a === fastest.strategy) lines.push(wrap(`- ${pairLine(turned(pair))}`, width))
    }
    if (reversals.length === 0) lines.push("No price alone makes one strategy overtake another within its range.")
    for (const { knob, end, ns, overtakes, overtaken, overtakesNs, overtakenNs } of reversals) {
      const medians = `${duration(overtakesNs)} against ${duration(overtakenNs)}`
      lines.push(wrap(`With ${knob} at its ${end}, ${ns} ns, ${overtakes} overtakes ${overtaken}: ${medians}.`, width))
    }
  }
  const still = knobs.filter(({ knob }) => withoutEffect.includes(knob))
  const list = (taken: boolean): string =>
    still
      .flatMap((one) => (one.taken === taken ? [`${one.knob} (${one.kind})`.replace(" (primitive)", "")] : []))
      .join(", ")
  if (list(true) !== "") lines.push(wrap(`Taken, but without an effect that all seeds agree on: ${list(true)}.`, width))
  if (list(false) !== "") lines.push(wrap(`Without effect, as no path takes it: ${list(false)}.`, width))
  return lines.join("\n")
}

/** The pair seen from the other side. */
const turned = ({ a, b, ratio: nominal, differenceNs, knobs }: PairEffect): PairEffect => {
  const inverse = (value: number | null): number | null => (value === null || value === 0 ? null : 1 / value)
  return {
    a: b,
    b: a,
    ratio: inverse(nominal),
    differenceNs: -differenceNs,
    knobs: knobs.map(({ knob, ratioLow, ratioHigh, differenceLow, differenceHigh, detected }) => ({
      knob,
      detected,
      ratioLow: inverse(ratioLow),
      ratioHigh: inverse(ratioHigh),
      differenceLow: -differenceLow,
      differenceHigh: -differenceHigh
    }))
  }
}
