import { type Program, read, readBytes, write, writeBytes, xchg8 } from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
import { CORE_CALL, NOT_SERVED, PROTOCOL, SVSM_RESULT, SVSM_VMPL, SvsmCaller } from "../SvsmCall.ts"
import { GUEST_VMPL } from "./GuestBoot.ts"
import { BLOCK, blockOf, type GuestBody, type GuestPlan, LEVEL_BLOCK, levelBlockOf } from "./GuestPlan.ts"
import { enterLevel, type LevelContext, ringLevel, startLowerLevels } from "./LowerLevels.ts"
import { now } from "./Pace.ts"
import { CORE_VERSION_1 } from "./Workload.ts"

/** The level whose program makes the calls. */
const CLIENT = 3

/** A request in a level's SERVICE page: to whom, and through which levels it goes on. The guest's own convention. */
const REQUEST = { pending: 0, target: 1, hops: 2, path: 3, result: 8, SIZE: 12 } as const

/** In place of a path: the client has made all its calls. */
const GOOD_BYE = 0xff

/** What the guest's programs do: the paths of each vCPU's calls as levels, outermost first. */
export type PathsOf = (apicId: number) => ReadonlyArray<ReadonlyArray<number>>

/** The boot level's body: starts the levels below it, hands over to the client, and serves until that says good-bye. */
export const fourLevels =
  (): GuestBody =>
  (plan, apicId, caGpa): Program =>
    bootLevel(plan, apicId, caGpa)

function* bootLevel(plan: GuestPlan, apicId: number, caGpa: number): Program {
  const ghcb = new Ghcb(blockOf(plan, apicId) + BLOCK.GHCB)
  const svsm = new SvsmCaller(caGpa, plan.ring, ghcb)
  yield* startLowerLevels(plan, apicId, svsm)
  plan.report.up?.(apicId, yield* now())
  const context = { ghcb, ring: plan.ring }
  yield* ringLevel(context, CLIENT)
  yield* serve(plan, context, apicId, plan.guestVmpl ?? GUEST_VMPL, svsm)
  plan.report.done(apicId)
}

/** A level between the boot level and the client: a service. */
export function* serviceLevel(plan: GuestPlan, vmpl: number): Program {
  const context = yield* enterLevel(plan, vmpl)
  const { apicId } = context
  yield* serve(plan, context, apicId, vmpl, callerAt(plan, context, apicId, vmpl))
}

/** The client: makes one call after the other, each along its path. */
export function* clientLevel(plan: GuestPlan, pathsOf: PathsOf): Program {
  const context = yield* enterLevel(plan, CLIENT)
  const { apicId } = context
  const svsm = callerAt(plan, context, apicId, CLIENT)
  plan.report.ready(apicId)
  const paths = pathsOf(apicId)
  for (const path of paths) {
    const result = yield* callAlong(plan, context, apicId, CLIENT, svsm, path)
    plan.report.called(apicId, Number.parseInt(path.join(""), 10), result)
  }
  yield* request(plan, context, apicId, CLIENT, plan.guestVmpl ?? GUEST_VMPL, [GOOD_BYE])
}

const callerAt = (plan: GuestPlan, { ghcb, ring }: LevelContext, apicId: number, vmpl: number): SvsmCaller =>
  new SvsmCaller(levelBlockOf(plan, apicId, vmpl) + LEVEL_BLOCK.CALLING_AREA, ring, ghcb)

/** Serves the requests of less privileged levels, one each time that somebody runs this level. */
function* serve(plan: GuestPlan, context: LevelContext, apicId: number, vmpl: number, svsm: SvsmCaller): Program {
  for (;;) {
    let caller = -1
    for (const from of plan.lowerLevels!) {
      if (from <= vmpl) continue
      const area = levelBlockOf(plan, apicId, from) + LEVEL_BLOCK.SERVICE
      const { lo: head } = yield read(area, 4)
      if ((head & 0xff) !== 1 || ((head >>> 8) & 0xff) !== vmpl) continue
      caller = from
      const path = yield* readPath(area, (head >>> 16) & 0xff)
      if (path[0] === GOOD_BYE) return
      const result = yield* callAlong(plan, context, apicId, vmpl, svsm, path)
      yield write(area + REQUEST.result, 4, result >>> 0)
      yield write(area + REQUEST.pending, 1, 0)
      break
    }
    yield* ringLevel(context, caller < 0 ? (plan.guestVmpl ?? GUEST_VMPL) : caller)
  }
}

function* readPath(area: number, hops: number): Program<ReadonlyArray<number>> {
  const path = new Uint8Array(Math.min(hops, REQUEST.result - REQUEST.path))
  if (path.length > 0) yield readBytes(area + REQUEST.path, path)
  return Array.from(path)
}

/** A call to the first level of a path, which passes it on along the rest. Without a path it is done. */
function* callAlong(
  plan: GuestPlan,
  context: LevelContext,
  apicId: number,
  vmpl: number,
  svsm: SvsmCaller,
  path: ReadonlyArray<number>
): Program<number> {
  const [next, ...rest] = path
  if (next === undefined) return SVSM_RESULT.SUCCESS
  if (next === SVSM_VMPL) return yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: CORE_VERSION_1 })
  return yield* request(plan, context, apicId, vmpl, next, rest)
}

/** A request to a service: written, rung, and looked at whether it was served, as with the SVSM. */
function* request(
  plan: GuestPlan,
  context: LevelContext,
  apicId: number,
  from: number,
  target: number,
  path: ReadonlyArray<number>
): Program<number> {
  const area = levelBlockOf(plan, apicId, from) + LEVEL_BLOCK.SERVICE
  const bytes = new Uint8Array(REQUEST.SIZE)
  bytes[REQUEST.target] = target
  bytes[REQUEST.hops] = path.length
  bytes.set(path, REQUEST.path)
  yield writeBytes(area, bytes)
  yield write(area + REQUEST.pending, 1, 1)
  yield* ringLevel(context, target)
  if ((yield xchg8(area + REQUEST.pending, 0)).lo !== 0) return NOT_SERVED
  return (yield read(area + REQUEST.result, 4)).lo
}
