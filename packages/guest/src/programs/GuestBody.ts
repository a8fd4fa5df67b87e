import type { Program } from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
import { SvsmCaller } from "../SvsmCall.ts"
import { BLOCK, blockOf, type GuestBody, type GuestPlan } from "./GuestPlan.ts"
import { enterLevel, ringLevel, startLowerLevels } from "./LowerLevels.ts"
import { type AcceptancePlan, acceptMemory } from "./MemoryAcceptance.ts"
import { now } from "./Pace.ts"
import { makeCalls } from "./Workload.ts"

/** What a vCPU does, one after the other; each part may be left out. */
export interface BodyPlan {
  readonly acceptance?: AcceptancePlan | undefined
  /** Virtual ns from the start of one call to that of the next; 0: back to back. */
  readonly paceNs: number
}

/** A vCPU brings up its less privileged levels, accepts its share of memory, then makes its calls at their pace. */
export const guestBody =
  (body: BodyPlan): GuestBody =>
  (plan, apicId, caGpa): Program =>
    run(body, plan, apicId, caGpa)

function* run({ acceptance, paceNs }: BodyPlan, plan: GuestPlan, apicId: number, caGpa: number): Program {
  const svsm = new SvsmCaller(caGpa, plan.ring, new Ghcb(blockOf(plan, apicId) + BLOCK.GHCB))
  yield* startLowerLevels(plan, apicId, svsm)
  plan.report.up?.(apicId, yield* now())
  plan.report.ready(apicId)
  if (acceptance !== undefined) yield* acceptMemory(acceptance, plan, apicId, svsm)
  yield* makeCalls(plan, apicId, svsm, paceNs)
  plan.report.done(apicId)
}

/** A less privileged level with nothing of its own to do: it gives the vCPU back whenever it is run. */
export function* idleLevel(plan: GuestPlan, vmpl: number, bootVmpl: number): Program {
  const context = yield* enterLevel(plan, vmpl)
  for (;;) yield* ringLevel(context, bootVmpl)
}
