/** Where interrupts go while VMPLs take turns, by strategy and injection mode. */
import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import type { InterruptRecord, Interrupts } from "@vmpl-lab/lab"
import { describe, expect, it } from "vitest"
import { runInterrupts } from "../support/interruptRun.ts"

type Source = Interrupts["sources"][number]

const DEVICE_2: Source = { source: "device", vmpl: 2, periodNs: 50_000 }
const TIMER_2: Source = { source: "timer", vmpl: 2, periodNs: 200_000 }
const IPI_2: Source = { source: "ipi", vmpl: 2, periodNs: 100_000 }
const DEVICE_0: Source = { source: "device", vmpl: 0, periodNs: 60_000 }
const TIMER_0: Source = { source: "timer", vmpl: 0, periodNs: 300_000 }
const IPI_0: Source = { source: "ipi", vmpl: 0, everyCalls: 2 }

/** One local APIC for all levels: an interrupt is for whoever runs. */
const sharesLapic = ({ key }: Strategy): boolean => key === "multi-vmpl-vcpu"
/** KVM takes every interrupt from outside to be for the least privileged level there is. */
const outsideIsLowest = (strategy: Strategy): boolean => strategy.operations.kernel.outsideVmpl !== undefined

const whereItEnded = ({ delivered, misdelivered, merged, refused, pending, lost }: InterruptRecord): number =>
  delivered + misdelivered + merged + refused + pending + lost

const byName = STRATEGIES.map((strategy) => [strategyName(strategy), strategy] as const)
const ownLapics = byName.filter(([, strategy]) => !sharesLapic(strategy))

describe.each(byName)("%s", (_, strategy) => {
  it.each(["normal", "restricted", "alternate"] as const)(
    "%s injection: every interrupt that was raised ended somewhere, and none is lost",
    (injection) => {
      const isAlternate = injection === "alternate"
      const { records } = runInterrupts(strategy, {
        injection,
        svsmInjection: isAlternate ? "restricted" : "normal",
        sources: [DEVICE_2, TIMER_2, ...(isAlternate ? [] : [IPI_2]), DEVICE_0, TIMER_0, IPI_0]
      })
      for (const record of Object.values(records)) {
        expect(whereItEnded(record)).toBe(record.raised)
        expect(record.lost).toBe(0)
        expect(record.refused).toBe(0)
      }
      expect(records["device@2"]!.raised).toBeGreaterThan(50)
      expect(records["device@2"]!.delayed).toBeGreaterThan(5)
    }
  )

  it("no latency is shorter than the interrupt's way into the guest", () => {
    const { records } = runInterrupts(strategy, { sources: [DEVICE_2, TIMER_2] })
    for (const { directNs, delayedNs } of Object.values(records)) {
      expect(directNs.length).toBeGreaterThan(3)
      // VMRUN at least comes between a request that leaves KVM and a handler.
      for (const ns of [...directNs, ...delayedNs]) expect(ns).toBeGreaterThan(800)
    }
  })

  it("the same seed gives the same interrupts, to the nanosecond", () => {
    const keys = { sources: [DEVICE_2, DEVICE_0] }
    const [a, b, other] = [1, 1, 2].map((seed) => runInterrupts(strategy, keys, { seed }))
    expect(a).toEqual(b)
    expect(a!.stateDigest).not.toBe(other!.stateDigest)
  })

  it("IPIs reach the same level of the other vCPU", () => {
    const { records } = runInterrupts(strategy, { sources: [IPI_2], svsmShare: 0 }, { vcpus: 2 })
    const { raised, delivered } = records["ipi@2"]!
    expect(raised).toBeGreaterThan(60)
    expect(delivered).toBe(raised)
  })
})

describe("normal injection", () => {
  it("S1: the level that runs takes the other one's interrupts", () => {
    const { records } = runInterrupts(STRATEGIES[0]!, { sources: [DEVICE_2, DEVICE_0] })
    for (const record of Object.values(records)) {
      expect(record.misdelivered).toBeGreaterThan(10)
      expect(record.delivered + record.misdelivered).toBe(record.raised - record.merged)
    }
  })

  it("S1: there is one timer, and the level that set it last has it", () => {
    const { records } = runInterrupts(STRATEGIES[0]!, { sources: [TIMER_2, TIMER_0] })
    expect(records["timer@2"]!.raised).toBeGreaterThan(15)
    expect(records["timer@0"]!.raised).toBe(0)
  })

  it.each(ownLapics)("%s: each level has its own timer, and takes its own interrupts only", (_, strategy) => {
    const { records } = runInterrupts(strategy, { sources: [TIMER_2, TIMER_0, DEVICE_2] })
    for (const { misdelivered, delivered } of Object.values(records)) {
      expect(misdelivered).toBe(0)
      expect(delivered).toBeGreaterThan(8)
    }
  })

  it.each(ownLapics)("%s: the guest's interrupt waits until the SVSM is through", (_, strategy) => {
    const { records } = runInterrupts(strategy, { sources: [DEVICE_2], pagesPerCall: 40 })
    const { directNs, delayedNs } = records["device@2"]!
    const longest = (samples: ReadonlyArray<number>): number => Math.max(...samples)
    // A call of 40 pages takes longer than any way in.
    expect(longest(delayedNs)).toBeGreaterThan(4 * longest(directNs.slice(0, 1)))
  })

  it.each(ownLapics)(
    "%s: a device's interrupt for the SVSM reaches it, at the latest with the next call",
    (_, strategy) => {
      const { records } = runInterrupts(strategy, { sources: [DEVICE_0] })
      const { raised, merged, pending, delivered, misdelivered, refused } = records["device@0"]!
      if (outsideIsLowest(strategy)) expect(misdelivered + refused).toBeGreaterThan(0)
      else expect([delivered + merged + pending, misdelivered, refused]).toEqual([raised, 0, 0])
    }
  )
})

describe("who runs VMPL0 for its interrupt when the guest never calls it", () => {
  const OUTCOME: { readonly [name: string]: "delivered" | "misdelivered" | "waits" } = {
    "multi-vmpl-vcpu": "misdelivered",
    "vcpu-per-vmpl/vmm-threads": "waits",
    "vcpu-per-vmpl/vmm-one-thread": "waits",
    "vcpu-per-vmpl/kernel": "misdelivered",
    "vm-per-vmpl/vmm-threads": "delivered",
    "vm-per-vmpl/vmm-one-thread": "delivered",
    "vm-per-vmpl/kernel-link": "delivered",
    "planes/user-space": "delivered",
    "planes/kernel": "delivered"
  }

  it.each(byName)("%s", (name, strategy) => {
    const { records } = runInterrupts(strategy, { sources: [DEVICE_0], svsmShare: 0 })
    const { raised, delivered, misdelivered, merged, pending } = records["device@0"]!
    expect(raised).toBeGreaterThan(50)
    switch (OUTCOME[name]) {
      case "delivered":
        return expect(delivered + merged).toBe(raised)
      case "misdelivered":
        return expect([delivered, misdelivered + merged]).toEqual([0, raised])
      case "waits":
        return expect([delivered, misdelivered, merged + pending]).toEqual([0, 0, raised])
      default:
        throw new Error(`no row for ${name}`)
    }
  })
})

describe("restricted injection of VMPL0 without a doorbell", () => {
  it("S1: what comes while the SVSM runs waits until the guest does", () => {
    const { records } = runInterrupts(STRATEGIES[0]!, { svsmInjection: "blocked", sources: [DEVICE_2] })
    const { raised, merged, delivered, misdelivered, delayedNs } = records["device@2"]!
    expect([misdelivered, delivered]).toEqual([0, raised - merged])
    expect(delayedNs.length).toBeGreaterThan(10)
  })
})

describe("alternate injection", () => {
  const keys = { injection: "alternate", svsmInjection: "restricted", sources: [DEVICE_2] } as const

  it("S1: KVM cannot tell whose interrupt it is, and the guest gets none", () => {
    const { records } = runInterrupts(STRATEGIES[0]!, keys)
    const { delivered, misdelivered } = records["device@2"]!
    expect(delivered).toBe(0)
    expect(misdelivered).toBeGreaterThan(10)
  })

  it.each(ownLapics)("%s: the SVSM injects what the host tells it of", (_, strategy) => {
    const { records } = runInterrupts(strategy, keys)
    const { raised, merged, delivered, misdelivered } = records["device@2"]!
    expect([misdelivered, delivered]).toEqual([0, raised - merged])
    expect(delivered).toBeGreaterThan(15)
  })

  it.each(ownLapics)("%s: it takes longer than injection by the host", (_, strategy) => {
    const median = (injected: Partial<Interrupts>): number => {
      const samples = runInterrupts(strategy, { ...keys, ...injected }).records["device@2"]!.directNs.toSorted(
        (a, b) => a - b
      )
      return samples[samples.length >> 1]!
    }
    expect(median({})).toBeGreaterThan(1.5 * median({ injection: "normal" }))
  })

  const handOver = { ...keys, sources: [DEVICE_2, TIMER_2, DEVICE_0], leavesApicAtNs: 1_500_000 } as const

  it.each(ownLapics)(
    "%s: the host takes over the SVSM's APIC in the middle, and no interrupt is lost",
    (_, strategy) => {
      for (const vcpus of [1, 2]) {
        const { records } = runInterrupts(strategy, handOver, { vcpus })
        for (const record of Object.values(records)) {
          expect(whereItEnded(record)).toBe(record.raised)
          expect([record.lost, record.refused]).toEqual([0, 0])
          if (record.vmpl === 0 && outsideIsLowest(strategy)) continue
          expect(record.misdelivered).toBe(0)
          expect(record.delivered).toBe(record.raised - record.merged - record.pending)
        }
        expect(records["device@2"]!.delivered).toBeGreaterThan(30)
      }
    }
  )

  it.each(ownLapics)("%s: after that an interrupt's way is the host's", (_, strategy) => {
    const median = (more: Partial<Interrupts>): number => {
      const { directNs } = runInterrupts(strategy, { ...keys, ...more }).records["device@2"]!
      return directNs.toSorted((a, b) => a - b)[directNs.length >> 1]!
    }
    const emulated = median({})
    const early = median({ leavesApicAtNs: 0 })
    expect(early).toBeLessThan(0.7 * emulated)
    expect(early).toBeLessThan(1.1 * median({ injection: "normal", svsmInjection: "normal" }))
  })

  it("S1: there is no local APIC of the level's own to take over, and the SVSM keeps its", () => {
    const { records } = runInterrupts(STRATEGIES[0]!, handOver)
    expect(records["device@2"]!.delivered).toBe(0)
    expect(whereItEnded(records["device@2"]!)).toBe(records["device@2"]!.raised)
  })
})
