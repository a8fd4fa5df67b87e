import type { Strategy } from "@vmpl-lab/hv-strategies"
import { parseFirmware, syntheticFirmware } from "@vmpl-lab/hypervisor"
import { Machine, Scenario, scenarioLaunch, type WorkloadName } from "@vmpl-lab/lab"
import { profile } from "./guestRun.ts"

/** What a test asks of a workload; everything else is small. */
export type WorkloadOptions = Partial<Omit<Scenario, "name" | "host">> & {
  readonly workload: WorkloadName
  readonly seed?: number
  readonly cores?: number
}

/** Runs one boot of a workload to its end. @returns the machine as it is then */
export const runWorkload = (strategy: Strategy, options: WorkloadOptions): Machine => {
  const { seed = 1, cores = 96, ...given } = options
  const scenario = new Scenario({
    name: "test",
    vcpus: 2,
    calls: 0,
    boots: 1,
    mix: { QUERY_PROTOCOL: 60, PVALIDATE: 30, REMAP_CA: 10 },
    ring: "page",
    ...given,
    host: { cores, placement: "spread" }
  })
  const image = parseFirmware(syntheticFirmware(), "built-in firmware")
  const svsm = scenarioLaunch(image, scenario, seed)
  const machine = new Machine({ strategy, scenario, profile, seed, calls: true, svsm })
  while (machine.stepMany(100_000)) {}
  const failure = machine.failure()
  if (failure !== null) throw new Error(failure)
  return machine
}
