import { duration, percent } from "../Units.ts"
import { wrap } from "../Wrap.ts"
import type { BreakEven } from "./BreakEven.ts"
import { setName } from "./Knobs.ts"

/** A gap in words: `2.10 us slower`. */
const gap = (ns: number): string => (ns === 0 ? "equal" : `${duration(Math.abs(ns))} ${ns > 0 ? "slower" : "faster"}`)

/** ", 23 % of today's": how far a price has to go. */
const share = (ns: number, now: number): string => (now === 0 ? "" : `, ${percent(ns / now)} of today's`)

const answerText = ({
  answer,
  crossings,
  nowNs,
  gapNowNs,
  floorNs,
  boundNs,
  best,
  noiseNs,
  monotone
}: BreakEven): string => {
  const chance = noiseNs === 0 ? "" : `, give or take ${duration(noiseNs / 2)}`
  const now = `now ${nowNs} ns, ${gap(gapNowNs)}${chance}`
  const at = crossings.map(({ ns, notSlower }) => `${ns} ns (not slower ${notSlower})`).join(" and ")
  const bent = monotone ? "" : "; the gap is not monotone between the prices tried"
  switch (answer) {
    case "at":
      return `at ${crossings[0]!.ns} ns and ${crossings[0]!.notSlower}${share(crossings[0]!.ns, nowNs)} (${now})${bent}`
    case "several":
      return `at ${at} (${now})${bent}`
    case "never": {
      const where = best.ns === floorNs ? `even at ${floorNs} ns` : `at most near at ${best.ns} ns`
      return `never, ${where}: ${duration(best.gapNs)} remain (${now})${bent}`
    }
    case "always":
      return `always, from ${floorNs} to ${boundNs} ns (${now})${bent}`
  }
}

/** Answers by pair of strategies, without a line feed at the end. */
export const breakEvenText = (results: ReadonlyArray<BreakEven>, operation: string, width: number): string => {
  const lines: Array<string> = []
  let pair = ""
  for (const result of results) {
    const title = `${result.a} as fast as ${result.b}, ${operation} at the median:`
    if (title !== pair) lines.push(...(pair === "" ? [] : [""]), wrap(title, width))
    pair = title
    lines.push(wrap(`- ${setName(result.primitives)}: ${answerText(result)}`, width))
  }
  return lines.join("\n")
}
