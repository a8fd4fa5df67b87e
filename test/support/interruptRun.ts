import type { Strategy } from "@vmpl-lab/hv-strategies"
import { parseFirmware, syntheticFirmware } from "@vmpl-lab/hypervisor"
import {
  DEFAULT_SCENARIO,
  type InterruptRecord,
  type Interrupts,
  runStrategy,
  Scenario,
  scenarioLaunch
} from "@vmpl-lab/lab"
import { profile } from "./guestRun.ts"

/** A run's interrupts by source and level, such as "device@2". */
export type InterruptRecords = { readonly [sourceAtLevel: string]: InterruptRecord }

export const KEYS: Interrupts = {
  injection: "normal",
  svsmInjection: "normal",
  sources: [],
  svsmShare: 400,
  pagesPerCall: 8,
  durationNs: 4_000_000
}

/** Runs the workload `interrupts` under one strategy. Throws where the guest does not come to its end. */
export const runInterrupts = (
  strategy: Strategy,
  keys: Partial<Interrupts>,
  { vcpus = 1, seed = 1, cores = 96 }: { readonly vcpus?: number; readonly seed?: number; readonly cores?: number } = {}
): { readonly records: InterruptRecords; readonly stateDigest: string } => {
  const interrupts = { ...KEYS, ...keys }
  const host = { cores, placement: "spread" } as const
  const scenario = new Scenario({
    ...DEFAULT_SCENARIO,
    workload: "interrupts",
    vcpus,
    calls: 0,
    boots: 1,
    host,
    interrupts
  })
  const image = parseFirmware(syntheticFirmware(), "built-in firmware")
  const run = runStrategy({
    strategy,
    scenario,
    profile,
    seed,
    svsm: scenarioLaunch(image, scenario, seed)
  })
  for (;;) {
    const { done, value } = run.next()
    if (done !== true) continue
    if (typeof value === "string") throw new Error(value)
    const { interrupts: records, stateDigest } = value.run
    return {
      records: Object.fromEntries(records!.map((record) => [`${record.source}@${record.vmpl}`, record])),
      stateDigest
    }
  }
}
