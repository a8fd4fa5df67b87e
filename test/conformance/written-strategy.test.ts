import { STRATEGIES, type Strategy } from "@vmpl-lab/hv-strategies"
import * as hypervisor from "@vmpl-lab/hypervisor"
import * as rmp from "@vmpl-lab/rmp"
import { PRIMITIVE } from "@vmpl-lab/sim"
import { describe, expect, it } from "vitest"
import { codeOf, exportOf } from "../support/docCode.ts"
import { runScenario } from "../support/scenarioRun.ts"
import { probeStrategy } from "../support/strategyProbe.ts"

const code = codeOf("write-a-strategy.md")
const strategy = exportOf(code, "vmmSwap", {
  "@vmpl-lab/hypervisor": hypervisor,
  "@vmpl-lab/rmp": rmp,
  "./MultiVmplVcpu.ts": { multiVmplVcpu: STRATEGIES[0]! }
}) as Strategy

describe("the strategy of docs/write-a-strategy.md", () => {
  it("is shorter than 60 lines", () => {
    expect(code.split("\n").length).toBeLessThan(60)
  })

  it("serves a guest as the others do, with one exit to user space and one ioctl more per switch", () => {
    const run = runScenario(strategy, { vcpus: 3, calls: 20 })
    expect(run.guestDigest).toBe(runScenario(STRATEGIES[0]!, { vcpus: 3, calls: 20 }).guestDigest)
    const oneWay = run.operations.find(({ operation }) => operation === "run-vmpl-one-way")!
    const n = oneWay.ns.length
    expect(oneWay.counters).toMatchObject({ userExits: n, ioctls: 2 * n, threadHandOffs: 0, tlbFlushes: 0 })
    expect(oneWay.countByPrimitive[PRIMITIVE.vmcb_swap_fields]).toBe(n)
  })

  it("answers errors as the strategy that it is made of", () => {
    expect(probeStrategy(strategy)).toEqual(probeStrategy(STRATEGIES[0]!))
  })
})
