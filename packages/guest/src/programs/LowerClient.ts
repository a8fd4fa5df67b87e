import { type Program, write } from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
import { LEVEL_CALL, levelService, svsmService } from "../LevelCall.ts"
import { CALLING_AREA, SvsmCaller } from "../SvsmCall.ts"
import { acceptBuffers, type ClientPort, doJobs } from "./CallClient.ts"
import { GUEST_VMPL } from "./GuestBoot.ts"
import { BLOCK, blockOf, type GuestBody, type GuestPlan, LEVEL_BLOCK, levelBlockOf } from "./GuestPlan.ts"
import { enterLevel, ringLevel, startLowerLevels } from "./LowerLevels.ts"
import { now } from "./Pace.ts"

/** A client at a less privileged level than the one that boots. */
export interface LowerClientPlan {
  readonly vmpl: number
  /** Protocols that the boot level serves; the others are the SVSM's. */
  readonly servedByBootLevel: ReadonlySet<number>
}

/** The boot level's part where it serves nothing itself: it brings the client up, and is run again at the end. */
export const clientBelow =
  (vmpl: number): GuestBody =>
  (plan, apicId, caGpa) =>
    bootLevel(plan, apicId, caGpa, vmpl)

function* bootLevel(plan: GuestPlan, apicId: number, caGpa: number, vmpl: number): Program {
  const ghcb = new Ghcb(blockOf(plan, apicId) + BLOCK.GHCB)
  yield* startLowerLevels(plan, apicId, new SvsmCaller(caGpa, plan.ring, ghcb))
  plan.report.up?.(apicId, yield* now())
  yield* ringLevel({ ghcb, ring: plan.ring }, vmpl)
  plan.report.done(apicId)
}

/**
 * The client: does its jobs, then says that there are no more. Its buffers are its own to accept, unless the boot level
 * serves it: that has given it some then.
 */
export function* lowerClient(port: ClientPort, plan: GuestPlan, { vmpl, servedByBootLevel }: LowerClientPlan): Program {
  const context = yield* enterLevel(plan, vmpl)
  const { apicId, ghcb } = context
  const block = levelBlockOf(plan, apicId, vmpl)
  const area = block + LEVEL_BLOCK.SERVICE
  const boot = plan.guestVmpl ?? GUEST_VMPL
  const svsm = new SvsmCaller(block + LEVEL_BLOCK.CALLING_AREA, plan.ring, ghcb)
  if (servedByBootLevel.size === 0) {
    yield* acceptBuffers(svsm, blockOf(plan, apicId), svsm.caGpa + CALLING_AREA.SIZE)
  }
  plan.report.ready(apicId)
  const own = svsmService(svsm)
  const below = levelService(area, context, boot)
  yield* doJobs(port, plan, apicId, {
    svsm,
    serviceOf: (protocol) => (servedByBootLevel.has(protocol) ? below : own)
  })
  yield write(area + LEVEL_CALL.end, 1, 1)
  yield* ringLevel(context, boot)
}
