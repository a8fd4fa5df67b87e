import { CALLING_AREA, MIGRATION_RESULT, MIGRATION_ROLE, RESUME_ENTRY, SVSM_RESULT } from "@vmpl-lab/guest"
import { EFER_SVME, getU64, PAGE_SIZE, setU64, VMSA } from "@vmpl-lab/sev-es"
import { type Program, pause, read, readBytes, write, writeBytes } from "@vmpl-lab/vmpl"
import { NO_RETURN } from "../../protocols/Protocol.ts"
import { gpaOf, type SvsmRequest, setRegister } from "../../protocols/Request.ts"
import type { SvsmState } from "../../State.ts"
import { isCallersBuffer, writeGuest } from "../GuestBuffer.ts"
import type { Migration } from "./Migration.ts"
import { movedPages } from "./MovedPages.ts"
import { giveBackAll } from "./WriteRight.ts"

/** Looks of STOP at who has parked, and PAUSEs between two of them, before the caller is heard again. */
const STOP = { LOOKS: 64, PAUSES: 64 } as const

/**
 * PARK: the calling vCPU stops where it wants to go on. Its VMSA has everything by then, and EFER.SVME stays clear, so
 * that no host can run it. There is nobody to answer: the result is in the VMSA for when it goes on.
 */
export function* park(state: SvsmState, migration: Migration, request: SvsmRequest): Program<number> {
  const { caller } = request
  const { vmsaGpa, caGpa, apicId, vmpl } = caller
  if (state.registry.some((other) => other !== caller && other.apicId === apicId)) return MIGRATION_RESULT.MORE_LEVELS
  migration.parking.add(caller)
  yield write(vmsaGpa + VMSA.rip, 8, request.rcxLo, request.rcxHi)
  yield write(vmsaGpa + VMSA.rax, 8, SVSM_RESULT.SUCCESS)
  // Which core it ran on last means nothing elsewhere.
  const core = VMSA.tlb_id
  yield writeBytes(vmsaGpa + core, new Uint8Array(VMSA.pcpu_id + 8 - core))
  yield write(caGpa + CALLING_AREA.call_pending, 1, 0)
  state.served[apicId]![vmpl] = undefined
  state.running[apicId] = undefined
  migration.parking.delete(caller)
  migration.parked.add(caller)
  return NO_RETURN
}

/** A vCPU that was deleted after it had parked does not come back: its page is something else by now. */
export const forgetDeleted = ({ registry }: SvsmState, { parked }: Migration): void => {
  for (const vmsa of parked) if (!registry.includes(vmsa)) parked.delete(vmsa)
}

/** Whether a vCPU beside the agent is not parked. */
export const isRunning = ({ registry }: SvsmState, { agent, parked }: Migration): boolean =>
  registry.some((vmsa) => vmsa !== agent && !parked.has(vmsa))

/** STOP: once nobody but the agent runs, all that changed without a fault is known to have. */
export function* stop(state: SvsmState, migration: Migration): Program<number> {
  for (let looks = 0; isRunning(state, migration); looks++) {
    if (looks === STOP.LOOKS) return MIGRATION_RESULT.STILL_RUNNING
    yield pause(STOP.PAUSES)
  }
  forgetDeleted(state, migration)
  for (const { caGpa } of migration.parked) migration.pending.add(Math.floor(caGpa / PAGE_SIZE))
  for (const gfn of movedPages(state, migration)) if (!migration.versions.has(gfn)) migration.pending.add(gfn)
  migration.phase = "stopped"
  return SVSM_RESULT.SUCCESS
}

/**
 * RESUME: parked VMSAs can be run, and their CPUs serve them. On the source that is the way back, as long as the guest
 * has not gone; its pages have all their rights again.
 */
export function* resume(state: SvsmState, migration: Migration, request: SvsmRequest): Program<number> {
  const list = gpaOf(request.rcxLo, request.rcxHi)
  if (list % PAGE_SIZE !== 0) return SVSM_RESULT.INVALID_PARAMETER
  if (!(yield* isCallersBuffer(state, request.caller, list, PAGE_SIZE))) return SVSM_RESULT.INVALID_ADDRESS
  if (migration.parked.size * RESUME_ENTRY.SIZE > PAGE_SIZE) return SVSM_RESULT.INVALID_PARAMETER
  // Who is about to stop would miss the list, and nobody would run it again.
  if (migration.parking.size > 0) return MIGRATION_RESULT.STILL_RUNNING
  const before = migration.phase
  migration.phase = "resuming"
  const bytes = yield* withParked(state, migration, () => listParked(migration))
  if (!(yield* writeGuest(state, request.caller, list, bytes))) {
    migration.phase = before
    return SVSM_RESULT.INVALID_ADDRESS
  }
  yield* giveBackAll(state, migration)
  const resumed = yield* withParked(state, migration, () => unpark(state, migration))
  setRegister(request, "rdx", resumed)
  migration.pending.clear()
  migration.versions.clear()
  migration.phase = migration.role === MIGRATION_ROLE.SOURCE ? "keyed" : "none"
  return SVSM_RESULT.SUCCESS
}

/** Does something to the VMSAs that are parked, of which none is deleted meanwhile. */
function* withParked<R>(state: SvsmState, migration: Migration, act: () => Program<R>): Program<R> {
  yield* state.lock.read()
  try {
    forgetDeleted(state, migration)
    return yield* act()
  } finally {
    state.lock.release()
  }
}

/** Entries for whoever has to start them. */
function* listParked(migration: Migration): Program<Uint8Array> {
  const bytes = new Uint8Array(migration.parked.size * RESUME_ENTRY.SIZE)
  const view = new DataView(bytes.buffer)
  let entry = 0
  for (const vmsa of migration.parked) {
    const { vmsaGpa, apicId, vmpl } = vmsa
    const features = new Uint8Array(8)
    yield readBytes(vmsaGpa + VMSA.sev_features, features)
    view.setUint32(entry + RESUME_ENTRY.apicId, apicId, true)
    view.setUint32(entry + RESUME_ENTRY.vmpl, vmpl, true)
    setU64(view, entry + RESUME_ENTRY.vmsaGpa, vmsaGpa)
    setU64(view, entry + RESUME_ENTRY.sevFeatures, getU64(new DataView(features.buffer), 0))
    entry += RESUME_ENTRY.SIZE
  }
  return bytes
}

/** @returns how many run from now on */
function* unpark(state: SvsmState, migration: Migration): Program<number> {
  for (const vmsa of migration.parked) {
    const { vmsaGpa, apicId, vmpl } = vmsa
    const efer = (yield read(vmsaGpa + VMSA.efer, 4)).lo
    yield write(vmsaGpa + VMSA.efer, 4, efer | EFER_SVME)
    state.served[apicId]![vmpl] = vmsa
    state.running[apicId] = vmsa
  }
  const resumed = migration.parked.size
  migration.parked.clear()
  return resumed
}
