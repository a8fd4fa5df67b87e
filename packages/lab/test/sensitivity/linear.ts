import { PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import type { Evaluate } from "../../src/sensitivity/Evaluate.ts"

/** Counts of primitives in one operation. */
export type Counts = { readonly [K in PrimitiveName]?: number }

/** A profile in which everything is free but the given prices, as [ns, low, high]. */
export const profileOf = (
  prices: { readonly [K in PrimitiveName]?: readonly [ns: number, low: number, high: number] },
  sums: Profile["sums"] = []
): Profile => ({
  name: "by hand",
  machine: "none",
  primitives: Object.fromEntries(
    PRIMITIVES.map((name) => {
      const floor = name === "guest_pause" ? 1 : 0
      const [ns, low, high] = prices[name] ?? [floor, floor, floor]
      return [name, { ns, low, high, basis: "assumed", source: "none" }]
    })
  ) as Profile["primitives"],
  sums
})

/** Strategies whose latency is counts times prices, plus what a draw adds by chance. */
export const linear = (
  strategies: { readonly [name: string]: Counts },
  chance: (name: string, profile: Profile, draw: number) => number = () => 0
): Evaluate & { runs: number } => {
  const evaluate: Evaluate & { runs: number } = Object.assign(
    function* (name: string, profile: Profile, draw: number) {
      evaluate.runs++
      const taken = new Map(Object.entries(strategies[name]!) as Array<[PrimitiveName, number]>)
      const ns = [...taken].reduce((sum, [primitive, count]) => sum + count * profile.primitives[primitive].ns, 0)
      yield
      return { ns: ns + chance(name, profile, draw), samples: 10, taken }
    },
    { runs: 0 }
  )
  return evaluate
}

/** Runs a generator to its end. */
export const ended = <T>(run: Generator<unknown, T, void>): T => {
  for (;;) {
    const { done, value } = run.next()
    if (done === true) return value
  }
}
