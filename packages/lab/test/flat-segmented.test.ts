/** The layout of the RMP in memory is no business of software's: the same trace gives the same replies. */
import { encodeRstEntry, flatLayout, Rmp, resolveSwitches, rmpEndFor, segmentedLayout } from "@vmpl-lab/rmp"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type Action, ruleExplainer, type TraceConfig, TraceMachine } from "../src/index.ts"
import { anyAction, anySwitches } from "./actions.ts"

const GIB = 2 ** 30
const PAGES_PER_GIB = GIB / 0x1000
/** 66 GiB: one segment of 64 GiB is full, the next begins. */
const COVERED_GIB = 66
const pages = COVERED_GIB * PAGES_PER_GIB
const boundary = 64 * PAGES_PER_GIB

// Where no page of the trace lies: the pages of the RMP itself differ between the layouts.
const flat = flatLayout(0x4000_0000, rmpEndFor(0x4000_0000, COVERED_GIB * GIB))
const segmented = segmentedLayout(0x3000_0000, 0x2401, [
  encodeRstEntry({ base: 0x2_0000_0000, coveredGib: 64 }),
  encodeRstEntry({ base: 0x1_0000_0000, coveredGib: 2 })
])

/** Pages that meet: at both ends, around the boundary of the segments, and beyond what is covered. */
const frames = fc.constantFrom(
  0,
  0,
  1,
  2,
  511,
  512,
  boundary - 512,
  boundary - 1,
  boundary,
  boundary,
  boundary + 1,
  pages - 1,
  pages
)

/** Steps that most random traces never get to: a page given to a guest, validated and granted. */
const lend = fc
  .record({ pfn: frames, size: fc.constantFrom(0 as const, 1 as const), asid: fc.constantFrom(1, 2) })
  .map(({ pfn, size, asid }): ReadonlyArray<Action> => {
    const first = size === 0 ? pfn : pfn - (pfn % 512)
    const at = { asid, vmpl: 0, gfn: first, npt: { pfn: first, size } }
    return [
      { op: "rmpupdate", pfn: first, assigned: true, size, immutable: false, gfn: first, asid },
      { op: "pvalidate", ...at, size, validate: true },
      { op: "rmpadjust", ...at, size, targetVmpl: 1, mask: 0xf, vmsa: size === 0 },
      { op: "rmpquery", ...at, targetVmpl: 1 }
    ]
  })

const traces = fc
  .array(
    fc.oneof(
      lend,
      anyAction({ frames, asids: 2, vmpls: 4 }).map((action) => [action])
    ),
    { minLength: 30, maxLength: 120 }
  )
  .map((parts) => parts.flat())

describe("flat and segmented RMP", () => {
  it("cover the same pages", () => {
    expect([flat.pages, segmented.pages]).toEqual([pages, pages])
    for (const pfn of [0, boundary - 1, boundary, pages - 1, pages])
      expect(segmented.covers(pfn)).toBe(flat.covers(pfn))
    expect(flat.entryAddress(boundary)).not.toBe(segmented.entryAddress(boundary))
  })

  it("give equal replies, explanations and digests", () => {
    const successes = new Set<string>()
    fc.assert(
      fc.property(anySwitches, traces, (switches, actions) => {
        const config: TraceConfig = { pages, basePfn: 0, vmpls: 4, switches: resolveSwitches(switches) }
        const machines = [flat, segmented].map(
          (layout) => new TraceMachine(config, new Rmp({ layout, switches: config.switches }))
        )
        const [one, other] = machines as [TraceMachine, TraceMachine]
        for (const action of actions) {
          if (action.op === "digest") continue
          expect(ruleExplainer(action, other)).toEqual(ruleExplainer(action, one))
          const reply = one.apply(action)
          expect(other.apply(action)).toEqual(reply)
          if ("eax" in reply && reply.eax === 0) successes.add(action.op)
        }
        expect(other.digest()).toBe(one.digest())
      }),
      { seed: 20261121, numRuns: 60 }
    )
    expect([...successes].sort()).toEqual(["psmash", "pvalidate", "rmpadjust", "rmpquery", "rmpread", "rmpupdate"])
  })
})
