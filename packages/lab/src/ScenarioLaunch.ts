import type { FirmwareImage } from "@vmpl-lab/hypervisor"
import { interruptLaunch } from "./InterruptRun.ts"
import type { Scenario } from "./Scenario.ts"
import { type SvsmLaunch, svsmLaunch } from "./SvsmLaunch.ts"
import { workOf } from "./workloads/Work.ts"

/**
 * The launch that a scenario's workload needs: levels, memory, interrupts. Throws FirmwareError when the firmware leaves
 * no place for it.
 */
export const scenarioLaunch = (image: FirmwareImage, scenario: Scenario, seed: number): SvsmLaunch =>
  svsmLaunch(image, scenario.vcpus, { ...workOf(scenario, seed).needs, interrupts: interruptLaunch(scenario) })
