import { MIGRATION_RESULT, SVSM_RESULT } from "@vmpl-lab/guest"
import { PERMISSION } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, pvalidate, rmpadjust, work, writeBytes } from "@vmpl-lab/vmpl"
import { revoke } from "../../protocols/Permissions.ts"
import type { GuestVmsa, SvsmState } from "../../State.ts"
import { decodeState, type GuestState, layoutOf, type MovedVcpu } from "./GuestState.ts"
import { accept, nextRecord } from "./ImportPages.ts"
import { type Migration, PAGE_COST } from "./Migration.ts"
import { gfnsOf, isMoved, memoryDigest } from "./MovedPages.ts"
import { RECORD } from "./SealedRecord.ts"
import { type SharedBuffer, takeShared } from "./SharedBuffer.ts"

const { SUCCESS } = SVSM_RESULT
const { MALFORMED, OTHER_LAYOUT, PAGE_REFUSED, STALE_MEMORY } = MIGRATION_RESULT

/** The last records, opened. */
interface LastRecords {
  readonly state: GuestState
  readonly vmsas: ReadonlyArray<Uint8Array>
  readonly records: number
}

/**
 * IMPORT_STATE: looks at all of it before any of it is done. Memory must be what it was when the guest stopped, page for
 * page; then VMSAs become VMSAs again, which the host cannot run before RESUME.
 */
export function* importState(state: SvsmState, migration: Migration, buffer: SharedBuffer): Program<number> {
  const last = yield* openLast(migration, yield* takeShared(buffer))
  if (typeof last === "number") return last
  const guest = last.state
  if (guest.layout !== layoutOf(state) || guest.vcpus.length !== last.vmsas.length) return OTHER_LAYOUT
  migration.sequence += last.records
  migration.own = guest.own
  const gfns = gfnsOf(guest.pages)
  if (guest.memory !== memoryDigest(gfns, (gfn) => migration.versions.get(gfn))) {
    migration.phase = "refused"
    return STALE_MEMORY
  }
  // Pages go and VMSAs come: no other CPU may rely on any of them meanwhile.
  yield* state.lock.write()
  let placed: number
  try {
    placed = yield* place(state, migration, last, new Set(gfns))
  } finally {
    state.lock.release()
  }
  migration.phase = placed === SUCCESS ? "arrived" : "refused"
  migration.key = null
  return placed
}

function* openLast(migration: Migration, bytes: Uint8Array): Program<LastRecords | number> {
  const vmsas: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length; ) {
    yield work(PAGE_COST.SEAL)
    const next = nextRecord(migration, bytes, at, migration.sequence + vmsas.length)
    if (typeof next === "number") return next
    const { kind, payload } = next.record
    at = next.end
    if (kind === RECORD.VMSA && payload.length === PAGE_SIZE) vmsas.push(payload)
    else if (kind === RECORD.STATE && at === bytes.length)
      return { state: decodeState(payload), vmsas, records: vmsas.length + 1 }
    else return MALFORMED
  }
  return MALFORMED
}

function* place(
  state: SvsmState,
  migration: Migration,
  { state: guest, vmsas }: LastRecords,
  exist: ReadonlySet<number>
): Program<number> {
  for (const gfn of [...state.validated.gfns()]) {
    if (isMoved(state, migration, gfn) && !exist.has(gfn) && !(yield* rescind(state, gfn))) return PAGE_REFUSED
  }
  for (const [i, vcpu] of guest.vcpus.entries()) {
    const vmsa = yield* placeVmsa(state, vcpu, vmsas[i]!)
    if (vmsa === null) return PAGE_REFUSED
    migration.parked.add(vmsa)
  }
  for (const [gfn, vmpl] of guest.deposited) state.deposited.set(gfn, vmpl)
  return SUCCESS
}

/** A page of the launch, or one that came early, which the guest has given back since. */
function* rescind(state: SvsmState, gfn: number): Program<boolean> {
  if ((yield* revoke(state, gfn * PAGE_SIZE)) !== SUCCESS) return false
  if ((yield pvalidate(gfn * PAGE_SIZE, false)).lo !== 0) return false
  state.validated.delete(gfn)
  return true
}

/** As CREATE_VCPU does it, but for the calling area, which has arrived with the guest's memory. */
function* placeVmsa(state: SvsmState, vcpu: MovedVcpu, contents: Uint8Array): Program<GuestVmsa | null> {
  const { vmsaGpa, caGpa, apicId, vmpl } = vcpu
  if (!(yield* accept(state, vmsaGpa)) || (yield* revoke(state, vmsaGpa)) !== SUCCESS) return null
  yield writeBytes(vmsaGpa, contents)
  if ((yield rmpadjust(vmsaGpa, vmpl, PERMISSION.READ, true)).lo !== 0) return null
  const vmsa: GuestVmsa = { vmsaGpa, caGpa, apicId, vmpl, guestOwned: true }
  state.registry.push(vmsa)
  return vmsa
}
