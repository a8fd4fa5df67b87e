import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import type { OperationName, OperationRecord, StrategyRun } from "@vmpl-lab/lab"
import { PRIMITIVE, type PrimitiveName } from "@vmpl-lab/sim"
import { describe, expect, it } from "vitest"
import { runScenario } from "../support/scenarioRun.ts"

const VCPUS = 2
const CALLS = 40
const S1 = STRATEGIES.find(({ key }) => key === "multi-vmpl-vcpu")!
const OTHERS = STRATEGIES.filter((strategy) => strategy !== S1)
const THREADS = STRATEGIES.filter(({ variant }) => variant === "vmm-threads")
const ONE_THREAD = STRATEGIES.filter(({ variant }) => variant === "vmm-one-thread" || variant === "user-space")
const IN_KERNEL = STRATEGIES.filter(({ variant }) => variant === "kernel" || variant === "kernel-link")

const of = (run: StrategyRun, name: OperationName): OperationRecord =>
  run.operations.find(({ operation }) => operation === name)!
const times = ({ countByPrimitive }: OperationRecord, name: PrimitiveName): number => countByPrimitive[PRIMITIVE[name]]!

describe.each(STRATEGIES)("work under $key $variant", (strategy) => {
  const run = runScenario(strategy, { vcpus: VCPUS, calls: CALLS })

  it("is recorded for every call: two switches each, and their latencies add up", () => {
    const oneWay = of(run, "run-vmpl-one-way")
    const roundTrip = of(run, "run-vmpl-round-trip")
    expect([roundTrip.ns.length, oneWay.ns.length]).toEqual([VCPUS * CALLS, 2 * VCPUS * CALLS])
    const sum = (ns: ReadonlyArray<number>): number => ns.reduce((a, b) => a + b, 0)
    expect(sum(roundTrip.ns)).toBe(sum(oneWay.ns))
    expect(roundTrip.counters).toEqual(oneWay.counters)
  })

  it("breaks down into primitives whose sum is the latency", () => {
    for (const { operation, ns, nsByPrimitive } of run.operations) {
      const total = ns.reduce((a, b) => a + b, 0)
      expect([operation, nsByPrimitive.reduce((a, b) => a + b, 0)]).toEqual([operation, total])
      expect(total).toBeGreaterThan(0)
    }
  })

  it("is one exit, one VMRUN and one dispatch per switch, and no more TLB flushes than the placement makes", () => {
    const oneWay = of(run, "run-vmpl-one-way")
    const switches = oneWay.ns.length
    expect(oneWay.counters.vmExits).toBe(switches)
    expect(times(oneWay, "vmexit_sev_snp")).toBe(switches)
    expect(times(oneWay, "vmrun_sev_snp")).toBe(switches)
    expect(times(oneWay, "kvm_dispatch")).toBe(switches)
    // Spread: every vCPU thread has a core of its own. The VMCB that ran last there is the same, if the thread has one.
    const flushes = strategy === S1 || THREADS.includes(strategy) ? 0 : switches
    expect([oneWay.counters.tlbFlushes, times(oneWay, "tlb_flush_asid")]).toEqual([flushes, flushes])
    expect(times(oneWay, "thread_handoff_same_core")).toBe(0)
  })

  it("measures an AP creation for each vCPU but the first, at both levels", () => {
    const starts = of(run, "ap-create").groups.filter(({ name }) => name.endsWith(" CREATE"))
    expect(starts.map(({ name, ns }) => [name, ns.length])).toEqual([
      ["VMPL0 CREATE", VCPUS - 1],
      ["VMPL2 CREATE", VCPUS - 1]
    ])
  })

  it("repeats to the byte for a seed; another seed changes latencies and nothing that the guest sees", () => {
    const only = { QUERY_PROTOCOL: 0, PVALIDATE: 1, REMAP_CA: 0 }
    const [first, again, other] = [1, 1, 2].map((seed) => runScenario(strategy, { seed, mix: only }))
    expect(again!.stateDigest).toBe(first!.stateDigest)
    expect(again!.operations).toEqual(first!.operations)
    expect(again!.virtualNs).toBe(first!.virtualNs)
    expect(other!.stateDigest).not.toBe(first!.stateDigest)
    expect(other!.guestDigest).toBe(first!.guestDigest)
  })
})

it("is the same for the guest under every strategy, rung either way, on few cores as on many", () => {
  const digests = STRATEGIES.flatMap((strategy) =>
    [
      {},
      { ring: "msr" } as const,
      { placement: "same-core" } as const,
      { cores: 1 },
      { cores: 3, placement: "same-core" } as const
    ].map((options) => runScenario(strategy, { vcpus: 4, calls: 60, ...options }).guestDigest)
  )
  expect(new Set(digests).size).toBe(1)
  const fewer = runScenario(S1, { vcpus: 4, calls: 59 })
  expect(fewer.guestDigest).not.toBe(digests[0])
})

describe("S1, all levels in one vCPU", () => {
  const run = runScenario(S1, { vcpus: VCPUS, calls: CALLS })
  const oneWay = of(run, "run-vmpl-one-way")

  it("never leaves the kernel for a switch, and swaps the VMSA once", () => {
    expect(oneWay.counters).toMatchObject({ userExits: 0, ioctls: 0, threadHandOffs: 0, kicks: 0 })
    expect(times(oneWay, "vmcb_swap_fields")).toBe(oneWay.ns.length)
    expect(of(run, "ap-create").counters).toMatchObject({ userExits: 0, ioctls: 0 })
  })

  it("needs one vCPU object, one thread and one VM for a guest vCPU", () => {
    expect(run.hostObjects).toEqual({
      vms: 1,
      vcpus: VCPUS,
      vmcbs: VCPUS,
      lapics: VCPUS,
      threads: VCPUS,
      nestedPageTables: 1
    })
  })

  it("flushes no TLB on a shared core either: the VMCB stays", () => {
    const { counters } = of(runScenario(S1, { placement: "same-core" }), "run-vmpl-one-way")
    expect(counters).toMatchObject({ userExits: 0, threadHandOffs: 0, tlbFlushes: 0 })
  })
})

it("takes every strategy's steps into one of the three groups", () => {
  expect([...THREADS, ...ONE_THREAD, ...IN_KERNEL].map(strategyName).sort()).toEqual(OTHERS.map(strategyName).sort())
})

describe.each(OTHERS)("$key $variant, a vCPU per level", (strategy) => {
  it("has a vCPU object per level that a guest vCPU uses, and threads by its variant", () => {
    const { hostObjects } = runScenario(strategy, { vcpus: 3, calls: 1 })
    const vms = strategy.key === "vm-per-vmpl" ? 2 : 1
    const threads = THREADS.includes(strategy) ? 6 : 3
    expect(hostObjects).toEqual({ vms, vcpus: 6, vmcbs: 6, lapics: 6, threads, nestedPageTables: vms })
  })

  it("is slower than S1, which takes part of its steps", () => {
    const sum = (candidate: Strategy): number =>
      of(runScenario(candidate), "run-vmpl-round-trip").ns.reduce((a, b) => a + b, 0)
    expect(sum(strategy)).toBeGreaterThan(sum(S1))
  })

  it("flushes the TLB on every switch on a shared core", () => {
    const oneWay = of(runScenario(strategy, { calls: CALLS, placement: "same-core" }), "run-vmpl-one-way")
    const n = oneWay.ns.length
    expect([oneWay.counters.tlbFlushes, times(oneWay, "tlb_flush_asid")]).toEqual([n, n])
    expect(times(oneWay, "thread_handoff_same_core")).toBe(THREADS.includes(strategy) ? n : 0)
    expect(times(oneWay, "thread_handoff_cross_core")).toBe(0)
  })
})

describe.each([...THREADS, ...ONE_THREAD])("$key $variant, switched in user space", (strategy) => {
  it("is one exit to user space and one KVM_RUN per switch, and a hand-off where threads change", () => {
    const oneWay = of(runScenario(strategy, { vcpus: VCPUS, calls: CALLS }), "run-vmpl-one-way")
    const n = oneWay.ns.length
    const handOffs = THREADS.includes(strategy) ? n : 0
    expect(oneWay.counters).toMatchObject({ vmExits: n, userExits: n, threadHandOffs: handOffs, kicks: 0 })
    // KVM_RUN each time. The AP's first call finds VMPL0 halted, as the creation of VMPL2 left it: KVM_SET_MP_STATE,
    // which with planes is KVM's own.
    const ioctls = strategy.key === "planes" ? 0 : VCPUS - 1
    expect([oneWay.counters.ioctls, times(oneWay, "ioctl")]).toEqual([n + ioctls, ioctls])
    for (const name of ["userspace_exit", "vmm_dispatch", "userspace_entry"] as const) {
      expect([name, times(oneWay, name)]).toEqual([name, n])
    }
    expect(times(oneWay, "thread_handoff_cross_core")).toBe(handOffs)
    // An ioctl of a vCPU loads it and puts it; on one thread that is all that does.
    expect([times(oneWay, "vcpu_load"), times(oneWay, "vcpu_put")]).toEqual([ioctls, ioctls])
    expect(times(oneWay, "vmcb_swap_fields")).toBe(0)
  })
})

describe.each(IN_KERNEL)("$key $variant, switched by KVM_RUN's loop", (strategy) => {
  it("never leaves the kernel for a switch: it puts one vCPU and loads the other", () => {
    const oneWay = of(runScenario(strategy, { vcpus: VCPUS, calls: CALLS }), "run-vmpl-one-way")
    expect(oneWay.counters).toMatchObject({ userExits: 0, ioctls: 0, threadHandOffs: 0, kicks: 0 })
    for (const step of ["vcpu_put", "vcpu_load"] as const) expect(times(oneWay, step)).toBe(oneWay.ns.length)
    expect(times(oneWay, "vmcb_swap_fields")).toBe(0)
  })
})
