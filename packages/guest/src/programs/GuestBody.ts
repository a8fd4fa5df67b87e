import type { Program } from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
import { SvsmCaller } from "../SvsmCall.ts"
import { BLOCK, blockOf, type GuestBody, type GuestPlan } from "./GuestPlan.ts"
import { type Hands, unguarded } from "./Hands.ts"
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

function* run(body: BodyPlan, plan: GuestPlan, apicId: number, caGpa: number): Program {
  const ghcb = new Ghcb(blockOf(plan, apicId) + BLOCK.GHCB)
  const svsm = new SvsmCaller(caGpa, plan.ring, ghcb)
  yield* bringUpLevels(plan, apicId, svsm)
  plan.report.ready(apicId)
  yield* acceptAndCall(body, plan, apicId, { svsm, ghcb, guard: unguarded })
  plan.report.done(apicId)
}

/** The less privileged levels, until the vCPU is up with all of them. */
export function* bringUpLevels(plan: GuestPlan, apicId: number, svsm: SvsmCaller): Program {
  yield* startLowerLevels(plan, apicId, svsm)
  plan.report.up?.(apicId, yield* now())
}

/** The vCPU's share of the memory, then its calls. @returns as makeCalls */
export function* acceptAndCall(
  { acceptance, paceNs }: BodyPlan,
  plan: GuestPlan,
  apicId: number,
  hands: Hands
): Program<boolean> {
  if (acceptance !== undefined) yield* acceptMemory(acceptance, plan, apicId, hands)
  return yield* makeCalls(plan, apicId, hands, paceNs)
}

/** A less privileged level with nothing of its own to do: it gives the vCPU back whenever it is run. */
export function* idleLevel(plan: GuestPlan, vmpl: number, bootVmpl: number): Program {
  const context = yield* enterLevel(plan, vmpl)
  for (;;) yield* ringLevel(context, bootVmpl)
}
