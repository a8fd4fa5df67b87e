import { PRIMITIVES } from "@vmpl-lab/sim"
import * as Result from "effect/Result"
import { InputInvalid, oneLine, shown } from "../InputInvalid.ts"

/** Where a swept value goes. */
export type Target =
  | { readonly to: "base scenario" | "base profile" | "seed" }
  /** A place in the scenario's or the profile's JSON. */
  | { readonly to: "scenario" | "profile"; readonly path: ReadonlyArray<string> }
  /** A primitive's price: its spread, its range and the sums it is part of follow. */
  | { readonly to: "price"; readonly primitive: (typeof PRIMITIVES)[number] }

/** One line of a grid file: a parameter and the values it takes. */
export interface Axis {
  readonly key: string
  readonly target: Target
  readonly values: ReadonlyArray<unknown>
}

const EXPECTED = 'scenario, profile, strategy, seed, or a path that starts with "scenario.", "host." or "profile."'

const isPrimitive = (name: string | undefined): name is (typeof PRIMITIVES)[number] =>
  (PRIMITIVES as ReadonlyArray<string | undefined>).includes(name)

/** What a key addresses, or null for one that addresses nothing. `host.x` is short for `scenario.host.x`. */
const targetOf = (key: string): Target | null => {
  if (key === "scenario") return { to: "base scenario" }
  if (key === "profile") return { to: "base profile" }
  if (key === "seed") return { to: "seed" }
  const [head, ...path] = key.split(".")
  if (path.length === 0 || path.some((part) => part === "" || part === "__proto__")) return null
  if (head === "host") return { to: "scenario", path: ["host", ...path] }
  if (head === "scenario") return { to: "scenario", path }
  if (head !== "profile") return null
  const inside = path[0] === "primitives" ? path.slice(1) : path
  const [primitive, field] = inside
  if (!isPrimitive(primitive)) return { to: "profile", path }
  return inside.length === 2 && field === "ns"
    ? { to: "price", primitive }
    : { to: "profile", path: ["primitives", ...inside] }
}

/** The place that a target takes, for finding two keys that mean the same. */
const placeOf = (target: Target): string => {
  if (target.to === "price") return `profile.primitives.${target.primitive}.ns.`
  return "path" in target ? `${target.to}.${target.path.join(".")}.` : `${target.to}.`
}

const sameValue = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

/** The axes of a grid, in the order of its keys. A value that is no list stands for a list of one. */
export const axesOf = (
  file: string,
  grid: { readonly [key: string]: unknown }
): Result.Result<ReadonlyArray<Axis>, InputInvalid> => {
  const fail = (what: string) => Result.fail(new InputInvalid({ line: oneLine(`${file}: ${what}`) }))
  const axes: Array<Axis> = []
  for (const [key, value] of Object.entries(grid)) {
    if (key === "strategy") continue
    const target = targetOf(key)
    if (target === null) return fail(`${key}: unknown key with value ${shown(value)}, expected ${EXPECTED}`)
    const values: ReadonlyArray<unknown> = Array.isArray(value) ? value : [value]
    if (values.length === 0) return fail(`${key}: expected at least one value, got []`)
    const twice = values.find((one, i) => values.slice(0, i).some((before) => sameValue(one, before)))
    if (twice !== undefined) return fail(`${key}: value ${shown(twice)} given twice, expected once`)
    const place = placeOf(target)
    const rival = axes.find((axis) => {
      const other = placeOf(axis.target)
      return other.startsWith(place) || place.startsWith(other)
    })
    if (rival !== undefined) return fail(`${key}: addresses the same as ${rival.key}, expected one of them`)
    axes.push({ key, target, values })
  }
  return Result.succeed(axes)
}

/** JSON with a value put at a path; objects on the way are made where there are none. The argument stays as it is. */
export const withValueAt = (root: unknown, path: ReadonlyArray<string>, value: unknown): unknown => {
  const [key, ...rest] = path
  if (key === undefined) return value
  if (Array.isArray(root) && /^\d+$/.test(key)) {
    return Array.from({ length: Math.max(root.length, Number(key) + 1) }, (_, i) =>
      i === Number(key) ? withValueAt(root[i], rest, value) : root[i]
    )
  }
  const object = typeof root === "object" && root !== null && !Array.isArray(root) ? root : {}
  return { ...object, [key]: withValueAt((object as { [key: string]: unknown })[key], rest, value) }
}
