import { type Operation, type Program, writeBytes } from "@vmpl-lab/vmpl"
import { pvalidateList } from "../PvalidateList.ts"
import { CORE_CALL, PROTOCOL, SVSM_RESULT, type SvsmCaller } from "../SvsmCall.ts"
import { BLOCK, blockOf, CALL_KIND, type GuestPlan } from "./GuestPlan.ts"
import { type Hands, unguarded } from "./Hands.ts"
import { now, workUntil } from "./Pace.ts"

/** One vCPU's calls, in the order of its plan; each is one run-VMPL round trip. */
export function* workload(plan: GuestPlan, apicId: number, svsm: SvsmCaller): Program {
  plan.report.ready(apicId)
  yield* makeCalls(plan, apicId, { svsm, guard: unguarded }, 0)
  plan.report.done(apicId)
}

/**
 * The same at a pace: a call begins `paceNs` after the one before, or at once where that took longer; 0 is no pace.
 * @returns whether the page that is validated and rescinded in turn is left validated
 */
export function* makeCalls(
  plan: GuestPlan,
  apicId: number,
  { svsm, guard }: Pick<Hands, "svsm" | "guard">,
  paceNs: number
): Program<boolean> {
  const block = blockOf(plan, apicId)
  const validate = listWith(block, true)
  const rescind = listWith(block, false)
  let validated = false
  let next = paceNs === 0 ? 0 : yield* now()
  for (const kind of plan.calls(apicId)) {
    if (paceNs > 0) {
      yield* workUntil(next)
      next += paceNs
    }
    let result: number
    if (kind === CALL_KIND.PVALIDATE) {
      yield validated ? rescind : validate
      result = yield* guard(svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: block + BLOCK.LIST }))
      if (result === SVSM_RESULT.SUCCESS) validated = !validated
    } else if (kind === CALL_KIND.REMAP_CA) result = yield* guard(remapCallingArea(svsm, block))
    else result = yield* guard(svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: CORE_VERSION_1 }))
    plan.report.called(apicId, kind, result)
  }
  return validated
}

/** RCX of QUERY_PROTOCOL: protocol 0 in the upper half, version 1 in the lower. */
export const CORE_VERSION_1 = 1

/** Writes the list that asks for one page to be validated or rescinded. */
const listWith = (block: number, validate: boolean): Operation =>
  writeBytes(block + BLOCK.LIST, pvalidateList([{ gpa: block + BLOCK.TOGGLED, validate }]))

/** Moves the calling area to the other of two pages. */
function* remapCallingArea(svsm: SvsmCaller, block: number): Program<number> {
  const next = svsm.caGpa === block + BLOCK.CALLING_AREA ? block + BLOCK.OTHER_CALLING_AREA : block + BLOCK.CALLING_AREA
  const result = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.REMAP_CA, { rcx: next })
  if (result === SVSM_RESULT.SUCCESS) svsm.caGpa = next
  return result
}
