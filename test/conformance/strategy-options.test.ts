import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { STRATEGY_OPTIONS, type StrategyOptions } from "@vmpl-lab/hypervisor"
import { describe, expect, it } from "vitest"
import { runWorkload, type WorkloadOptions } from "../support/workloadRun.ts"

const named = (name: string) => STRATEGIES.find((strategy) => strategyName(strategy) === name)!

/** Guests that create levels by CREATE and by CREATE_ON_INIT, call between all of them, and halt. */
const GUESTS: ReadonlyArray<WorkloadOptions> = [
  { workload: "svsm-calls", vcpus: 3, calls: 10 },
  { workload: "ap-boot", vcpus: 3, apBoot: { moreLevels: "vmpl1-and-vmpl3" } },
  { workload: "four-levels", vcpus: 3, calls: 10, cores: 2 }
]

/** Each option's other choice, and the strategy that asks for it. */
const OTHERS = [
  ["levelVcpus", "with-vcpu", "vcpu-per-vmpl/kernel"],
  ["updateRequest", "running-level", "vcpu-per-vmpl/kernel"],
  ["createdPlane", "replaces", "planes/kernel"]
] as const

const withOption = (option: string, choice: string): Partial<StrategyOptions> => ({ [option]: choice })

describe.each(OTHERS)("%s: %s", (option, choice, name) => {
  it.each(GUESTS)("gives the guest the same as the default: $workload", (options) => {
    const usual = runWorkload(named(name), options)
    const other = runWorkload(named(name), { ...options, strategyOptions: withOption(option, choice) })
    expect(other.kvm.options[option]).toBe(choice)
    expect(other.log.digest()).toBe(usual.log.digest())
  })

  it("is no matter to strategies that do not name it", () => {
    const options = GUESTS[0]!
    for (const strategy of STRATEGIES) {
      const concerned = strategy.design.unconfirmed.some((text) => text.includes(`option ${option}`))
      if (strategyName(strategy) === name) expect(concerned).toBe(true)
      if (concerned) continue
      const other = runWorkload(strategy, { ...options, strategyOptions: withOption(option, choice) })
      expect(other.stateDigest()).toBe(runWorkload(strategy, options).stateDigest())
    }
  })
})

it("every option has two choices, and the other one is tried here", () => {
  for (const [option, choices] of Object.entries(STRATEGY_OPTIONS)) {
    expect(OTHERS.filter(([name]) => name === option).map(([, choice]) => choice)).toEqual(choices.slice(1))
  }
})

describe("what an option changes", () => {
  it("levelVcpus: the objects of all levels are there from the start, and no AP creation pays for them", () => {
    const run = (strategyOptions: Partial<StrategyOptions>) => {
      const machine = runWorkload(named("vcpu-per-vmpl/kernel"), { ...GUESTS[0]!, strategyOptions })
      return { vcpus: machine.kvm.vms[0]!.vcpus.size, created: Math.max(...machine.meter.apCreate.ns) }
    }
    const first = run({ levelVcpus: "first-create" })
    const early = run({ levelVcpus: "with-vcpu" })
    expect([first.vcpus, early.vcpus]).toEqual([3 * 2, 3 * 4])
    expect(early.created).toBeLessThan(first.created)
  })

  it("updateRequest: the object with the request is the one that runs", () => {
    const holders = (updateRequest: StrategyOptions["updateRequest"]) => {
      const strategy = named("vcpu-per-vmpl/kernel")
      const updated: Array<boolean> = []
      const kernel = {
        ...strategy.operations.kernel,
        updated: (vcpu: Parameters<NonNullable<typeof strategy.operations.kernel.updated>>[0]) => {
          const about = strategy.operations.kernel.updated!(vcpu)
          updated.push(about === vcpu)
          return about
        }
      }
      const watched = { ...strategy, operations: { ...strategy.operations, kernel } }
      runWorkload(watched, { ...GUESTS[0]!, strategyOptions: { updateRequest } })
      return new Set(updated)
    }
    expect(holders("own-level")).toEqual(new Set([true]))
    expect(holders("running-level")).toEqual(new Set([true, false]))
  })

  it("createdPlane: the SVSM's plane is not RUNNABLE any more once a plane was created beside it", () => {
    const planes = (createdPlane: StrategyOptions["createdPlane"]) => {
      const { kvm } = runWorkload(named("planes/kernel"), {
        ...GUESTS[0]!,
        calls: 0,
        strategyOptions: { createdPlane }
      })
      return [...kvm.vms[0]!.vcpus.values()].filter(({ current }) => current.vmpl === 0).map(({ common }) => common)
    }
    // APs: VMPL2 was started by CREATE while VMPL0 waited in HLT.
    for (const { runnablePlanes } of planes("runs-beside").slice(1)) expect(runnablePlanes).toBe(0b101)
    for (const { runnablePlanes } of planes("replaces").slice(1)) expect(runnablePlanes).toBe(0b100)
  })
})
