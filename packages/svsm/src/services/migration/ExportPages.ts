import { MIGRATION_RESULT, SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, readBytes, work } from "@vmpl-lab/vmpl"
import { type SvsmRequest, setRegister } from "../../protocols/Request.ts"
import type { SvsmState } from "../../State.ts"
import { type Migration, PAGE_COST } from "./Migration.ts"
import { digestOf, isMoved } from "./MovedPages.ts"
import { RECORD, recordSize, sealRecord } from "./SealedRecord.ts"
import { giveShared, type SharedBuffer } from "./SharedBuffer.ts"
import { letGo, rightsOf, takeWriteRight } from "./WriteRight.ts"

const PAGE_RECORD = recordSize(PAGE_SIZE)

/**
 * EXPORT: seals the next pages that have to go. Where the SVSM tracks, their write right is taken first, so that what is
 * sealed is the page as it is until the next fault.
 */
export function* exportPages(
  state: SvsmState,
  migration: Migration,
  request: SvsmRequest,
  buffer: SharedBuffer
): Program<number> {
  const room = Math.min(Math.floor(buffer.size / PAGE_RECORD), request.r8Lo)
  if (room === 0) return SVSM_RESULT.INVALID_PARAMETER
  yield* state.lock.read()
  const gfns = takePending(state, migration, room)
  let sealed: Uint8Array | null
  try {
    sealed = yield* sealPages(state, migration, gfns)
  } finally {
    for (const gfn of gfns) {
      migration.sealing.delete(gfn)
      letGo(state, migration, gfn)
    }
    state.lock.release()
  }
  if (sealed === null) {
    // They have not gone: without them the other side would not have all of the guest.
    for (const gfn of gfns) migration.pending.add(gfn)
    return MIGRATION_RESULT.PAGE_REFUSED
  }
  yield* giveShared(buffer, sealed)
  setRegister(request, "rcx", sealed.length)
  setRegister(request, "rdx", gfns.length)
  setRegister(request, "r8", leftOver(state, migration))
  return SVSM_RESULT.SUCCESS
}

/** The oldest pages to go, kept from being rescinded while they are read. What goes no more is dropped. */
const takePending = (state: SvsmState, migration: Migration, most: number): ReadonlyArray<number> => {
  const { pending, giving } = migration
  const taken: Array<number> = []
  for (const gfn of pending) {
    if (taken.length === most) break
    if (state.changing.has(gfn) || giving.has(gfn)) continue
    pending.delete(gfn)
    if (!isMoved(state, migration, gfn)) continue
    migration.sealing.add(gfn)
    state.kept.add(gfn)
    taken.push(gfn)
  }
  return taken
}

/** Pages that EXPORT would give next. */
export const leftOver = (state: SvsmState, migration: Migration): number => {
  let left = 0
  for (const gfn of migration.pending) if (isMoved(state, migration, gfn)) left++
  return left
}

function* sealPages(state: SvsmState, migration: Migration, gfns: ReadonlyArray<number>): Program<Uint8Array | null> {
  const rights = migration.hostTracks ? yield* allRights(gfns) : yield* takeWriteRight(state, migration, gfns)
  if (rights === null) return null
  const sealed = new Uint8Array(gfns.length * PAGE_RECORD)
  for (const [i, gfn] of gfns.entries()) {
    const payload = new Uint8Array(PAGE_SIZE)
    const gpa = gfn * PAGE_SIZE
    yield readBytes(gpa, payload)
    yield work(PAGE_COST.BOTH)
    migration.versions.set(gfn, { digest: digestOf(payload), rights: rights[i]! })
    const record = { kind: RECORD.PAGE, rights: rights[i]!, gpa, payload }
    sealed.set(sealRecord(migration.key!, migration.sequence++, record), i * PAGE_RECORD)
  }
  return sealed
}

function* allRights(gfns: ReadonlyArray<number>): Program<ReadonlyArray<number>> {
  const all: Array<number> = []
  for (const gfn of gfns) all.push(yield* rightsOf(gfn * PAGE_SIZE))
  return all
}
