import { PAGE_SIZE, TERMINATE } from "@vmpl-lab/sev-es"
import { type Program, writeBytes } from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
import { terminate } from "../MsrProtocol.ts"
import { pvalidateList } from "../PvalidateList.ts"
import { CORE_CALL, PROTOCOL, SVSM_RESULT, SvsmCaller } from "../SvsmCall.ts"
import { VariableDriver } from "../uefi/VariableDriver.ts"
import { BLOCK, blockOf, type GuestBody, type GuestPlan } from "./GuestPlan.ts"

/** What a guest does with UEFI variables. */
export interface VariablesPlan {
  /** Buffers of the vCPUs' drivers, one behind the other: RAM that nobody uses, not validated yet. */
  readonly gpa: number
  /** Pages of each buffer. */
  readonly pages: number
  readonly use: (driver: VariableDriver, apicId: number) => Program
}

/** Every vCPU uses variables by a driver of its own, and is done. */
export const variablesBody =
  (variables: VariablesPlan): GuestBody =>
  (plan, apicId, caGpa): Program =>
    run(variables, plan, apicId, caGpa)

function* run({ gpa, pages, use }: VariablesPlan, plan: GuestPlan, apicId: number, caGpa: number): Program {
  const block = blockOf(plan, apicId)
  const svsm = new SvsmCaller(caGpa, plan.ring, new Ghcb(block + BLOCK.GHCB))
  plan.report.ready(apicId)
  const own = gpa + apicId * pages * PAGE_SIZE
  const entries = Array.from({ length: pages }, (_, page) => ({ gpa: own + page * PAGE_SIZE, validate: true }))
  yield writeBytes(block + BLOCK.LIST, pvalidateList(entries))
  const accepted = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: block + BLOCK.LIST })
  if (accepted !== SVSM_RESULT.SUCCESS) yield* terminate(TERMINATE.PVALIDATE)
  yield* use(new VariableDriver(svsm, own, pages * PAGE_SIZE), apicId)
  plan.report.done(apicId)
}
