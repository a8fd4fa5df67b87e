import { MIGRATION_RESULT, SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, pvalidate, work, writeBytes } from "@vmpl-lab/vmpl"
import { validRegion } from "../../GuestAddress.ts"
import { type SvsmRequest, setRegister } from "../../protocols/Request.ts"
import type { SvsmState } from "../../State.ts"
import { type Migration, PAGE_COST } from "./Migration.ts"
import { digestOf } from "./MovedPages.ts"
import { type MigrationRecord, openRecord, RECORD } from "./SealedRecord.ts"
import { type SharedBuffer, takeShared } from "./SharedBuffer.ts"
import { rightsOf, setRights } from "./WriteRight.ts"

const { SUCCESS } = SVSM_RESULT
const { MALFORMED, NOT_AUTHENTIC, OUT_OF_SEQUENCE, PAGE_REFUSED } = MIGRATION_RESULT

const WHY = { malformed: MALFORMED, sequence: OUT_OF_SEQUENCE, authenticity: NOT_AUTHENTIC } as const

/** A record and where the next one begins, or a result code. */
type Next = { readonly record: MigrationRecord; readonly end: number } | number

/** The record at `at`, which must have the number given. */
export const nextRecord = (migration: Migration, bytes: Uint8Array, at: number, sequence: number): Next => {
  const opened = openRecord(migration.key!, sequence, bytes.subarray(at))
  return opened.ok ? { record: opened.record, end: at + opened.size } : WHY[opened.why]
}

/**
 * IMPORT: opens records one after the other. The first that is not the next one of this key ends it, nothing of that one
 * is taken, and the one that was expected may still come.
 */
export function* importPages(
  state: SvsmState,
  migration: Migration,
  request: SvsmRequest,
  buffer: SharedBuffer
): Program<number> {
  const bytes = yield* takeShared(buffer)
  let pages = 0
  let result: number = SUCCESS
  for (let at = 0; at < bytes.length && result === SUCCESS; ) {
    yield work(PAGE_COST.BOTH)
    const next = nextRecord(migration, bytes, at, migration.sequence)
    if (typeof next === "number") result = next
    else if (next.record.kind !== RECORD.PAGE || next.record.payload.length !== PAGE_SIZE) result = MALFORMED
    else {
      at = next.end
      migration.sequence++
      result = yield* placePage(state, migration, next.record)
      if (result === SUCCESS) pages++
    }
  }
  setRegister(request, "rdx", pages)
  return result
}

/** A page is kept from other CPUs until it is what it was: one that they work on cannot come now. */
function* placePage(state: SvsmState, migration: Migration, record: MigrationRecord): Program<number> {
  const { gpa } = record
  const { secretsGpa, cpuidGpa } = state.parameters
  const gfn = gpa / PAGE_SIZE
  const isOwn = gpa === secretsGpa || gpa === cpuidGpa
  yield* state.lock.read()
  try {
    if (gpa % PAGE_SIZE !== 0 || isOwn || !validRegion(state, gpa, PAGE_SIZE)) return PAGE_REFUSED
    if (state.changing.has(gfn) || state.held.includes(gfn)) return PAGE_REFUSED
    state.changing.add(gfn)
    try {
      return yield* placeKept(state, migration, record)
    } finally {
      state.changing.delete(gfn)
    }
  } finally {
    state.lock.release()
  }
}

function* placeKept(
  state: SvsmState,
  migration: Migration,
  { gpa, payload, rights }: MigrationRecord
): Program<number> {
  if (!(yield* accept(state, gpa))) return PAGE_REFUSED
  yield writeBytes(gpa, payload)
  if (!(yield* setRights(gpa, yield* rightsOf(gpa), rights))) return PAGE_REFUSED
  migration.versions.set(gpa / PAGE_SIZE, { digest: digestOf(payload), rights })
  return SUCCESS
}

/** Makes a page validated that is not yet; one that the RMP has as validated already is a trick of the host's. */
export function* accept(state: SvsmState, gpa: number): Program<boolean> {
  const gfn = gpa / PAGE_SIZE
  if (state.validated.has(gfn)) return true
  const { lo, carry } = yield pvalidate(gpa, true)
  if (lo !== 0 || carry) return false
  state.validated.add(gfn)
  return true
}
