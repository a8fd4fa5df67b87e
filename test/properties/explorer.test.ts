// @section 6
/**
 * The small RMP, every state of it. What must hold holds everywhere, and leaving out any one check of the access table
 * breaks it: no check is decoration.
 */
import { ACTIONS, attackTrace, CHECKS, Explorer, PROPERTIES, ruleExplainer, TraceReplay } from "@vmpl-lab/lab"
import { describe, expect, it } from "vitest"

describe("the small machine", () => {
  it("keeps every property in every state", () => {
    const { states, transitions, depth, effective, attack } = new Explorer().run()
    expect(attack).toBeNull()
    // Pinned: another number means that the architecture or the machine has changed.
    expect({ states, transitions, depth, actions: ACTIONS.length }).toEqual({
      states: 454_574,
      transitions: 6_082_234,
      depth: 20,
      actions: 217
    })
    // Each instruction got to do something somewhere: a machine in which nothing succeeds keeps any property.
    expect(effective).toEqual([
      "PAGE_RECLAIM",
      "PAGE_UNSMASH",
      "psmash",
      "pvalidate",
      "rmpadjust",
      "rmpupdate",
      "vmexit",
      "vmrun"
    ])
    // 454,574 states: a minute and more on a busy machine.
  }, 300_000)

  it("gives the same numbers each time", () => {
    const run = () => new Explorer({ without: "Mutable" }).run()
    expect(run()).toEqual(run())
  })
})

/** What software loses without a check. */
const LOSSES: { readonly [check in (typeof CHECKS)[number]]: keyof typeof PROPERTIES } = {
  "Hypervisor-Owned/host": "nobodyElseWrites",
  "Hypervisor-Owned/non-snp": "nobodyElseWrites",
  "Hypervisor-Owned/guest": "nobodyElseWrites",
  "RMP-Covered": "validated",
  "Guest-Owned": "validated",
  "Reverse-Map": "validated",
  Mutable: "firmware",
  "Page-Size": "validated",
  Validated: "validated",
  VMPL: "granted"
}

describe("without one check of the access table", () => {
  it.each(CHECKS)("%s: an attack, which the whole table stops by that check", (check) => {
    const { attack } = new Explorer({ without: check }).run()
    expect(attack?.violation.property).toBe(PROPERTIES[LOSSES[check]])
    const trace = attackTrace(attack!)
    const replay = new TraceReplay({ explainer: ruleExplainer })
    const { out, error } = replay.feed(new TextEncoder().encode(`${trace.join("\n")}\n`))
    expect(error).toBeNull()
    const replies = out
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
    const [config, ...rest] = replies
    expect(config.ok).toBe(true)
    const steps = rest.slice(0, attack!.path.length)
    for (const reply of steps) expect(reply.fault, JSON.stringify(reply)).toBeUndefined()
    const refused = rest.slice(steps.length).filter((reply) => reply.fault !== undefined)
    expect(refused.map((reply) => reply.explain.rule)).toEqual([check.split("/")[0]])
  })
})
