import type { FirmwareImage, IgvmFile } from "@vmpl-lab/hypervisor"
import { igvmLaunch } from "./IgvmLaunch.ts"
import { interruptLaunch } from "./InterruptRun.ts"
import type { Scenario } from "./Scenario.ts"
import { type LaunchNeeds, type SvsmLaunch, svsmLaunch } from "./SvsmLaunch.ts"
import { workOf } from "./workloads/Work.ts"

const needsOf = (scenario: Scenario, seed: number): Partial<LaunchNeeds> => ({
  ...workOf(scenario, seed).needs,
  interrupts: interruptLaunch(scenario)
})

/** The launch of an IGVM file whose SVSM is made for what the scenario needs; throws FirmwareError for any other. */
export const scenarioIgvmLaunch = (file: IgvmFile, scenario: Scenario, seed: number): SvsmLaunch =>
  igvmLaunch(file, scenario.vcpus, needsOf(scenario, seed))

/**
 * The launch that a scenario's workload needs: levels, memory, interrupts. Throws FirmwareError when the firmware leaves
 * no place for it. `change` is what is to be otherwise.
 */
export const scenarioLaunch = (
  image: FirmwareImage,
  scenario: Scenario,
  seed: number,
  change: Partial<LaunchNeeds> = {}
): SvsmLaunch => svsmLaunch(image, scenario.vcpus, { ...needsOf(scenario, seed), ...change })
