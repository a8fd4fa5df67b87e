import type { GuestPlan } from "@vmpl-lab/guest"
import { guestBody } from "@vmpl-lab/guest"
import { COCONUT_GUEST_VMPL } from "@vmpl-lab/svsm"
import type { ProgramMemory } from "@vmpl-lab/vmpl"
import type { Scenario } from "../Scenario.ts"
import type { LaunchNeeds } from "../SvsmLaunch.ts"
import { apBootLevels, installIdleLevels } from "./ApBoot.ts"
import { FOUR_LEVELS, fourLevelsWork } from "./FourLevels.ts"
import { acceptanceNeeds, acceptancePlan } from "./MemoryAcceptance.ts"
import { acceptorsOf } from "./Mixed.ts"
import { paceNs } from "./SvsmCalls.ts"
import type { WorkloadName } from "./Workload.ts"

/** Parts of a guest's plan that its workload decides. */
export type GuestWork = Pick<GuestPlan, "body" | "guestVmpl" | "lowerLevels">

/** A workload, ready to be launched and run. */
export interface Work {
  readonly needs: Partial<LaunchNeeds>
  /** `calls` is false in the boots that only add AP-create samples. */
  readonly guest: (calls: boolean) => GuestWork
  /** Puts the code of less privileged levels where their VMSAs will point. */
  readonly install: (programs: ProgramMemory, plan: GuestPlan, calls: boolean) => void
}

export const workloadOf = ({ workload }: Scenario): WorkloadName => workload ?? "svsm-calls"

/** What a scenario's workload makes of the machine and the guest; the same under every strategy. */
export const workOf = (scenario: Scenario, seed: number): Work => {
  const work = workOfWorkload(scenario, seed)
  return { ...work, needs: { ...work.needs, ...behaviourNeeds(scenario) } }
}

/** The SVSM that the scenario asks for. */
export const behaviourNeeds = ({ svsm }: Pick<Scenario, "svsm">): Pick<LaunchNeeds, "behaviour"> =>
  svsm === undefined ? {} : { behaviour: svsm.behaviour }

/** COCONUT-SVSM knows one level of the guest, and serves lists whole: what is wrong with a scenario that needs others. */
export const behaviourTrouble = (scenario: Scenario) => {
  if (scenario.svsm?.behaviour !== "coconut") return undefined
  const { guestVmpl = COCONUT_GUEST_VMPL, lowerLevels } = levelsOf(scenario)
  if (guestVmpl !== COCONUT_GUEST_VMPL || lowerLevels !== 0)
    return { path: ["svsm", "behaviour"], issue: "specification: this workload has guest levels other than VMPL2" }
  const { entriesPerCall = 0, by } = scenario.memoryAcceptance ?? {}
  if (entriesPerCall === 0 || by === "range") return undefined
  return { path: ["memoryAcceptance", "entriesPerCall"], issue: "0: the behaviour coconut serves a list in one call" }
}

const levelsOf = (scenario: Scenario): { readonly guestVmpl?: number; readonly lowerLevels: number } => {
  const workload = workloadOf(scenario)
  if (workload === "four-levels") return FOUR_LEVELS
  if (workload !== "ap-boot" && workload !== "mixed") return { lowerLevels: 0 }
  const { guestVmpl, lowerLevels } = apBootLevels(scenario)
  return { guestVmpl, lowerLevels: lowerLevels.length }
}

const workOfWorkload = (scenario: Scenario, seed: number): Work => {
  const workload = workloadOf(scenario)
  if (workload === "four-levels") return fourLevelsWork(scenario, seed)
  // What takes interrupts brings its own body.
  if (workload === "interrupts" || (workload === "svsm-calls" && paceNs(scenario) === 0)) return PLAIN
  const levels: Omit<GuestWork, "body"> = workload === "ap-boot" || workload === "mixed" ? apBootLevels(scenario) : {}
  const accepts = workload === "memory-acceptance" || workload === "mixed"
  const acceptance = accepts ? acceptancePlan(scenario, acceptorsOf(scenario)) : undefined
  const { guestVmpl, lowerLevels = [] } = levels
  return {
    needs: {
      ...(guestVmpl === undefined ? {} : { guestVmpl }),
      lowerLevels: lowerLevels.length,
      ...(acceptance === undefined ? {} : acceptanceNeeds(scenario, seed))
    },
    guest: (calls) => ({
      ...levels,
      body: guestBody({ acceptance: calls ? acceptance : undefined, paceNs: paceNs(scenario) })
    }),
    install: (programs, plan) => installIdleLevels(programs, plan)
  }
}

const PLAIN: Work = { needs: {}, guest: () => ({}), install: () => {} }
