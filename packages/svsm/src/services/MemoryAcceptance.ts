import { ACCEPTANCE, pageStateChanges, SVSM_RESULT, unitBytes } from "@vmpl-lab/guest"
import { PAGE_SIZE, PSC_MAX_ENTRIES, PSC_OP, toNumber } from "@vmpl-lab/sev-es"
import type { Program } from "@vmpl-lab/vmpl"
import { validRegion } from "../GuestAddress.ts"
import { ghcbOf } from "../Interrupts.ts"
import { validateKept } from "../protocols/CorePvalidate.ts"
import { SIZE_MISMATCH, validateKeptRegion } from "../protocols/CorePvalidate2m.ts"
import type { Protocol } from "../protocols/Protocol.ts"
import { gpaOf, RESULT_UNCHANGED, type SvsmRequest, setRegister } from "../protocols/Request.ts"
import type { SvsmState } from "../State.ts"

/** Units that one call accepts at most, unless the loader says how many entries a call may have: the caller is heard in between. */
const UNITS_PER_CALL = 512

const { PROTOCOL, CALL, PAGE_STATE_FAILED } = ACCEPTANCE
const { SUCCESS, INCOMPLETE, INVALID_ADDRESS, INVALID_PARAMETER, UNSUPPORTED_CALL } = SVSM_RESULT

/** What is asked for. */
interface Range {
  readonly gpa: number
  readonly units: number
  readonly is2m: boolean
}

/**
 * Memory acceptance: instead of a page state change and a list of pages for each batch, a guest names a range. The SVSM
 * has the host make it private where it is not validated, validates, clears and grants it, as PVALIDATE does page by
 * page and under the same lock, batch by batch. A page that is validated already ends the call: a guest does not accept twice.
 */
export const memoryAcceptance: Protocol = {
  number: PROTOCOL,
  versions: () => ({ MIN: 1, MAX: 1 }),
  *serve(state, request) {
    if (request.call !== CALL.ACCEPT) return UNSUPPORTED_CALL
    const range = rangeOf(request)
    if (range === null) return INVALID_PARAMETER
    const { gpa, units, is2m } = range
    if (!validRegion(state, gpa, units * unitBytes(is2m))) return INVALID_ADDRESS
    return yield* accept(state, request, range)
  }
}

const rangeOf = ({ rcxLo, rcxHi, rdxLo, rdxHi, r8Lo, r8Hi }: SvsmRequest): Range | null => {
  const gpa = gpaOf(rcxLo, rcxHi)
  const units = toNumber(rdxLo, rdxHi)
  if (r8Hi !== 0 || r8Lo > 1) return null
  const is2m = r8Lo === 1
  return gpa % unitBytes(is2m) === 0 && units > 0 && rdxHi === 0 ? { gpa, units, is2m } : null
}

/** Accepts batch after batch up to the bound. Registers tell what remains, whatever the result. */
function* accept(state: SvsmState, request: SvsmRequest, { gpa, units, is2m }: Range): Program<number> {
  const { entriesPerCall } = state.parameters
  const bound = Math.min(units, entriesPerCall === 0 ? UNITS_PER_CALL : entriesPerCall)
  const bytes = unitBytes(is2m)
  let done = 0
  let result: number = SUCCESS
  while (done < bound && result === SUCCESS) {
    const left = { gpa: gpa + done * bytes, units: Math.min(PSC_MAX_ENTRIES, bound - done), is2m }
    const outcome = yield* acceptLocked(state, request, left)
    done += outcome.done
    result = outcome.result
  }
  setRegister(request, "rcx", gpa + done * bytes)
  setRegister(request, "rdx", units - done)
  return result === SUCCESS && done < units ? INCOMPLETE : result
}

/** How far a batch came. */
interface Outcome {
  readonly done: number
  readonly result: number
}

/** A batch under the lock, no more: who makes a vCPU meanwhile waits as long as for a list, not for the whole range. */
function* acceptLocked(state: SvsmState, request: SvsmRequest, { gpa, units, is2m }: Range): Program<Outcome> {
  yield* state.lock.read()
  try {
    // A VMSA may have come into being while this waited.
    if (!validRegion(state, gpa, units * unitBytes(is2m))) return { done: 0, result: INVALID_ADDRESS }
    const batch = fresh(state, gpa, units, is2m)
    if (batch === 0) return { done: 0, result: RESULT_UNCHANGED }
    return yield* acceptBatch(state, request, { gpa, units: batch, is2m })
  } finally {
    state.lock.release()
  }
}

/** How many units in a row nobody has validated or is working on. */
const fresh = ({ validated, changing }: SvsmState, gpa: number, most: number, is2m: boolean): number => {
  const step = unitBytes(is2m) / PAGE_SIZE
  const isTaken = (gfn: number): boolean =>
    is2m ? validated.touchesRegion(gfn) || changing.touchesRegion(gfn) : validated.has(gfn) || changing.has(gfn)
  for (let unit = 0; unit < most; unit++) if (isTaken(gpa / PAGE_SIZE + unit * step)) return unit
  return most
}

/** One page state change, then each unit. The whole batch is kept from other CPUs: what they validated would be lost. */
function* acceptBatch(state: SvsmState, { vmpl, caller }: SvsmRequest, { gpa, units, is2m }: Range): Program<Outcome> {
  const bytes = unitBytes(is2m)
  const all = Array.from({ length: units }, (_, unit) => gpa + unit * bytes)
  for (const unit of all) keep(state, unit, is2m)
  try {
    if (!(yield* makePrivate(state, caller.apicId, all, is2m))) return { done: 0, result: PAGE_STATE_FAILED }
    for (const [done, unit] of all.entries()) {
      const result = is2m
        ? yield* validateUnit(state, unit, vmpl)
        : yield* validateKept(state, unit, vmpl, RESULT_UNCHANGED)
      if (result !== SUCCESS) return { done, result }
    }
    return { done: units, result: SUCCESS }
  } finally {
    for (const unit of all) letGo(state, unit, is2m)
  }
}

const keep = ({ changing }: SvsmState, gpa: number, is2m: boolean): void =>
  is2m ? changing.addRegion(gpa / PAGE_SIZE) : changing.add(gpa / PAGE_SIZE)

const letGo = ({ changing }: SvsmState, gpa: number, is2m: boolean): void =>
  is2m ? changing.deleteRegion(gpa / PAGE_SIZE) : changing.delete(gpa / PAGE_SIZE)

/** A region, page by page where the host backs it with pages of 4 KiB. */
function* validateUnit(state: SvsmState, gpa: number, vmpl: number): Program<number> {
  const whole = yield* validateKeptRegion(state, gpa, vmpl, RESULT_UNCHANGED)
  if (whole !== SIZE_MISMATCH) return whole
  for (let page = gpa; page < gpa + unitBytes(true); page += PAGE_SIZE) {
    const result = yield* validateKept(state, page, vmpl, RESULT_UNCHANGED)
    if (result !== SUCCESS) return result
  }
  return SUCCESS
}

function* makePrivate(state: SvsmState, apicId: number, units: ReadonlyArray<number>, is2m: boolean): Program<boolean> {
  const ghcb = ghcbOf(state, apicId)
  yield* ghcb.use()
  const entries = units.map((gpa) => ({ curPage: 0, gfn: gpa / PAGE_SIZE, operation: PSC_OP.PRIVATE, is2m }))
  return (yield* pageStateChanges(ghcb, entries)).ok
}
