import { MIGRATION_RESULT, SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, readBytes, work } from "@vmpl-lab/vmpl"
import { type SvsmRequest, setRegister } from "../../protocols/Request.ts"
import type { SvsmState } from "../../State.ts"
import { leftOver } from "./ExportPages.ts"
import { encodeState, layoutOf } from "./GuestState.ts"
import { MIGRATION_COST, type Migration, PAGE_COST, type PageVersion } from "./Migration.ts"
import { digestOf, memoryDigest, movedPages, runsOf } from "./MovedPages.ts"
import { forgetDeleted, isRunning } from "./Park.ts"
import { RECORD, sealRecord } from "./SealedRecord.ts"
import { giveShared, type SharedBuffer } from "./SharedBuffer.ts"

/**
 * EXPORT_STATE: VMSAs, then what the SVSM knows of the guest. It is the last thing that this SVSM says under the key, and
 * from then on the guest does not run here any more: it is never in two places.
 */
export function* exportState(
  state: SvsmState,
  migration: Migration,
  request: SvsmRequest,
  buffer: SharedBuffer
): Program<number> {
  // The agent may have made a vCPU since, which would take away what is read here.
  yield* state.lock.write()
  let bytes: Uint8Array | number
  try {
    bytes = yield* sealState(state, migration, buffer.size)
  } finally {
    state.lock.release()
  }
  if (typeof bytes === "number") return bytes
  yield* giveShared(buffer, bytes)
  setRegister(request, "rcx", bytes.length)
  return SVSM_RESULT.SUCCESS
}

/** @returns the records, after which nothing is sealed any more; or why there are none */
function* sealState(state: SvsmState, migration: Migration, room: number): Program<Uint8Array | number> {
  forgetDeleted(state, migration)
  if (isRunning(state, migration)) return MIGRATION_RESULT.STILL_RUNNING
  const gfns = movedPages(state, migration)
  const isUnsent = gfns.some((gfn) => !migration.versions.has(gfn))
  if (isUnsent || leftOver(state, migration) > 0) return MIGRATION_RESULT.PAGES_LEFT
  const versions = migration.rehash ? yield* hashAgain(migration, gfns) : migration.versions
  const vcpus = [...migration.parked].map(({ apicId, vmpl, vmsaGpa, caGpa }) => ({ apicId, vmpl, vmsaGpa, caGpa }))
  const key = migration.key!
  const parts: Array<Uint8Array> = []
  const seal = (kind: number, gpa: number, payload: Uint8Array): void => {
    const record = { kind, rights: 0, gpa, payload }
    parts.push(sealRecord(key, migration.sequence + parts.length, record))
  }
  for (const { vmsaGpa } of vcpus) {
    const contents = new Uint8Array(PAGE_SIZE)
    yield readBytes(vmsaGpa, contents)
    yield work(PAGE_COST.SEAL)
    seal(RECORD.VMSA, vmsaGpa, contents)
  }
  const payload = encodeState({
    layout: layoutOf(state),
    vcpus,
    pages: runsOf(gfns),
    memory: memoryDigest(gfns, (gfn) => versions.get(gfn)),
    deposited: [...state.deposited],
    own: migration.own
  })
  yield work(Math.ceil(payload.length / 1024) * MIGRATION_COST.SEAL_KIB)
  seal(RECORD.STATE, 0, payload)
  const bytes = Buffer.concat(parts)
  if (bytes.length > room) return SVSM_RESULT.INVALID_PARAMETER
  migration.sequence += parts.length
  migration.phase = "gone"
  migration.key = null
  return bytes
}

/** All memory as it is now, whatever was sent: a page that the host did not call dirty shows. */
function* hashAgain(migration: Migration, gfns: ReadonlyArray<number>): Program<ReadonlyMap<number, PageVersion>> {
  const versions = new Map<number, PageVersion>()
  const contents = new Uint8Array(PAGE_SIZE)
  for (const gfn of gfns) {
    yield readBytes(gfn * PAGE_SIZE, contents)
    yield work(PAGE_COST.HASH)
    versions.set(gfn, { digest: digestOf(contents), rights: migration.versions.get(gfn)!.rights })
  }
  return versions
}
