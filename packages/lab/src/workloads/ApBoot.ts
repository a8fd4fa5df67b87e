import { GUEST_VMPL, type GuestPlan, idleLevel, levelEntry } from "@vmpl-lab/guest"
import type { ProgramMemory } from "@vmpl-lab/vmpl"
import * as Schema from "effect/Schema"
import type { Scenario } from "../Scenario.ts"

/** Level at which the guest boots, and the less privileged ones that each of its vCPUs gets. */
const LEVELS = {
  none: { guestVmpl: 2, lowerLevels: [] },
  vmpl1: { guestVmpl: 1, lowerLevels: [2] },
  vmpl3: { guestVmpl: 2, lowerLevels: [3] },
  "vmpl1-and-vmpl3": { guestVmpl: 1, lowerLevels: [2, 3] }
} as const
type MoreLevels = keyof typeof LEVELS

/** Keys of the workload `ap-boot`, under `apBoot`. */
export const ApBootKeys = Schema.Struct({
  /** Which levels each vCPU gets beside VMPL0 and VMPL2. With VMPL1 the guest boots there and brings up the others. */
  moreLevels: Schema.optionalKey(Schema.Literals(Object.keys(LEVELS) as Array<MoreLevels>))
})

/** Levels of the guest's vCPUs. */
export const apBootLevels = ({ apBoot }: Scenario) => LEVELS[apBoot?.moreLevels ?? "none"]

/** Levels below the boot level that have nothing of their own to do. */
export const installIdleLevels = (programs: ProgramMemory, plan: GuestPlan): void => {
  const { guestVmpl = GUEST_VMPL, lowerLevels = [] } = plan
  for (const vmpl of lowerLevels) programs.install(levelEntry(vmpl), () => idleLevel(plan, vmpl, guestVmpl))
}
