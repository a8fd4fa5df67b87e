import { STRATEGY_OPTIONS } from "@vmpl-lab/hypervisor"
import { CALL_PATHS, type Scenario, type WorkloadName } from "@vmpl-lab/lab"
import fc from "fast-check"

/** A scenario without its host. */
export type Guest = Omit<Scenario, "host">

/** Whether timers and devices interrupt the guest. */
export const takesInterrupts = ({ interrupts }: Guest): boolean => interrupts !== undefined

const MODES = [
  { injection: "normal", svsmInjection: "normal" },
  { injection: "normal", svsmInjection: "restricted" },
  { injection: "restricted", svsmInjection: "blocked" },
  { injection: "restricted", svsmInjection: "restricted" },
  { injection: "alternate", svsmInjection: "restricted" }
] as const

const interrupts = fc
  .record({
    mode: fc.constantFrom(...MODES),
    sources: fc.subarray([
      { source: "device", vmpl: 2, periodNs: 150_000 },
      { source: "device", vmpl: 0, periodNs: 400_000 },
      { source: "timer", vmpl: 2, periodNs: 300_000 },
      { source: "timer", vmpl: 0, periodNs: 500_000 },
      { source: "ipi", vmpl: 2, periodNs: 250_000 },
      { source: "ipi", vmpl: 0, everyCalls: 3 }
    ] as const),
    svsmShare: fc.constantFrom(0, 300, 800),
    pagesPerCall: fc.constantFrom(0, 4),
    leavesApicAtNs: fc.option(fc.constantFrom(0, 400_000), { nil: undefined }),
    durationNs: fc.constant(1_000_000)
  })
  .map(({ mode, sources, leavesApicAtNs, ...rest }) => ({
    ...mode,
    ...rest,
    ...(mode.injection === "alternate" && leavesApicAtNs !== undefined ? { leavesApicAtNs } : {}),
    // What the schema refuses: an SVSM that takes nothing has no sources of its own, alternate injection no IPIs.
    sources: sources.filter(({ source, vmpl }) => {
      if (vmpl === 0) return mode.svsmInjection !== "blocked" || source === "device"
      return mode.injection !== "alternate" || source !== "ipi"
    })
  }))

const memoryAcceptance = fc.record({
  mebibytes: fc.integer({ min: 1, max: 4 }).map((regions) => 2 * regions),
  entrySize: fc.constantFrom("2M" as const, "4K" as const),
  fragmentedPermille: fc.constantFrom(0, 500, 1_000),
  by: fc.constantFrom("list" as const, "range" as const),
  entriesPerCall: fc.constantFrom(0, 100)
})

const svsmCalls = fc.record({ ratePerSecond: fc.constantFrom(0, 5_000, 100_000) })

const moreLevels = fc.constantFrom("none" as const, "vmpl1" as const, "vmpl3" as const, "vmpl1-and-vmpl3" as const)

/** The keys of each workload. */
const KEYS: { readonly [W in WorkloadName]: fc.Arbitrary<Partial<Guest>> } = {
  "svsm-calls": fc.record({ svsmCalls }),
  "ap-boot": fc.record({ apBoot: fc.record({ moreLevels }) }),
  "memory-acceptance": fc.record({ memoryAcceptance }),
  interrupts: fc.record({ interrupts }),
  "four-levels": fc.record({
    fourLevels: fc.record({ paths: fc.subarray([...CALL_PATHS], { minLength: 1 }).map(weightsOf) })
  }),
  mixed: fc
    .record(
      {
        svsmCalls,
        memoryAcceptance,
        interrupts,
        apBoot: fc.record({ moreLevels }),
        mixed: fc.record({ acceptingPermille: fc.constantFrom(0, 400, 1_000) })
      },
      { requiredKeys: ["svsmCalls", "memoryAcceptance", "apBoot", "mixed"] }
    )
    // A guest with interrupts boots at VMPL2.
    .filter(({ interrupts, apBoot }) => interrupts === undefined || !apBoot.moreLevels.startsWith("vmpl1"))
}

function weightsOf(paths: ReadonlyArray<(typeof CALL_PATHS)[number]>) {
  return Object.fromEntries(paths.map((path, i) => [path, i + 1]))
}

/** Any small guest of a workload. */
export const anyScenario = (workload: WorkloadName): fc.Arbitrary<Guest> =>
  fc
    .record({
      vcpus: fc.integer({ min: 1, max: 6 }),
      calls: fc.integer({ min: 0, max: 12 }),
      mix: fc.record({
        QUERY_PROTOCOL: fc.integer({ min: 1, max: 3 }),
        PVALIDATE: fc.integer({ min: 0, max: 3 }),
        REMAP_CA: fc.integer({ min: 0, max: 3 })
      }),
      ring: fc.constantFrom("page" as const, "msr" as const),
      strategyOptions: fc.record({
        levelVcpus: fc.constantFrom(...STRATEGY_OPTIONS.levelVcpus),
        updateRequest: fc.constantFrom(...STRATEGY_OPTIONS.updateRequest),
        createdPlane: fc.constantFrom(...STRATEGY_OPTIONS.createdPlane)
      }),
      keys: KEYS[workload]
    })
    .map(({ keys, ...fields }) => ({ name: "random", workload, boots: 1, ...fields, ...keys }))
    // A plane that keeps the vCPU while it is halted starves the others once an interrupt has woken it: by design.
    .filter((guest) => !takesInterrupts(guest) || guest.strategyOptions.createdPlane === "runs-beside")
