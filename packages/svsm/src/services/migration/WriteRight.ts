import { terminate } from "@vmpl-lab/guest"
import { PERMISSION } from "@vmpl-lab/rmp"
import { NPF_INFO1, NPF_INFO1_HI, PAGE_SIZE, TERMINATE, toNumber, VMSA } from "@vmpl-lab/sev-es"
import { invlpgb, type Program, pause, read, rmpadjust, rmpquery, tlbsync } from "@vmpl-lab/vmpl"
import { validRegion } from "../../GuestAddress.ts"
import type { GuestVmsa, SvsmState } from "../../State.ts"
import type { Migration } from "./Migration.ts"

const LEVELS = [1, 2, 3] as const

export const rightsAt = (rights: number, level: number): number => (rights >>> (8 * (level - 1))) & 0xff

/** What VMPL1 to VMPL3 may do with a page, a byte each. */
export function* rightsOf(gpa: number): Program<number> {
  let rights = 0
  for (const level of LEVELS) {
    const { lo, edx } = yield rmpquery(gpa, level)
    if (lo === 0) rights |= ((edx >>> 8) & 0xff) << (8 * (level - 1))
  }
  return rights
}

/** Gives each level the rights it is to have, where it has others. @returns false when RMPADJUST refuses */
export function* setRights(gpa: number, from: number, to: number): Program<boolean> {
  for (const level of LEVELS) {
    if (rightsAt(from, level) === rightsAt(to, level)) continue
    if ((yield rmpadjust(gpa, level, rightsAt(to, level), false)).lo !== 0) return false
  }
  return true
}

/** Rights without that to write, for the levels that a guest's vCPU may have: those more privileged have no VMSA. */
const withoutWrite = ({ parameters }: SvsmState, rights: number): number => {
  let left = rights
  for (const level of LEVELS) if (level >= parameters.guestVmpl) left &= ~(PERMISSION.WRITE << (8 * (level - 1)))
  return left
}

/**
 * Takes the right to write pages from the guest's levels, and sees to it that no TLB still has it: from here on a store
 * faults. The pages are noted first, so that the first fault finds them.
 * @returns the rights as they were, page by page; null when RMPADJUST refuses
 */
export function* takeWriteRight(
  state: SvsmState,
  migration: Migration,
  gfns: ReadonlyArray<number>
): Program<ReadonlyArray<number> | null> {
  const all: Array<number> = []
  for (const gfn of gfns) {
    const gpa = gfn * PAGE_SIZE
    const known = migration.guarded.get(gfn)
    const rights = known ?? (yield* rightsOf(gpa))
    all.push(rights)
    const left = withoutWrite(state, rights)
    if (known !== undefined || left === rights) continue
    migration.guarded.set(gfn, rights)
    if (!(yield* setRights(gpa, rights, left))) return null
  }
  yield invlpgb()
  yield tlbsync()
  return all
}

/** A page's rights as they were before. It is dirty once they are back, not before: it might be sent in between. */
function* giveBack(state: SvsmState, migration: Migration, gfn: number): Program {
  // Whoever had the page meanwhile may have given it other rights.
  const rights = migration.guarded.get(gfn)
  if (rights === undefined) return
  migration.guarded.delete(gfn)
  const given = yield* setRights(gfn * PAGE_SIZE, withoutWrite(state, rights), rights)
  if (!given) yield* terminate(TERMINATE.GENERAL)
  migration.pending.add(gfn)
}

/**
 * Does something to a page's rights. Meanwhile nobody rescinds it, takes it, or makes a VMSA of it: RMPADJUST would end
 * the SVSM, or make memory of a VMSA.
 */
function* keeping<R>(state: SvsmState, migration: Migration, gfn: number, act: () => Program<R>): Program<R> {
  yield* state.lock.read()
  try {
    while (state.changing.has(gfn) || migration.giving.has(gfn)) yield pause()
    migration.giving.add(gfn)
    state.kept.add(gfn)
    return yield* act()
  } finally {
    migration.giving.delete(gfn)
    letGo(state, migration, gfn)
    state.lock.release()
  }
}

/** A page may be taken away again, unless it is still worked with otherwise. */
export const letGo = ({ kept }: SvsmState, { giving, sealing }: Migration, gfn: number): void => {
  if (!giving.has(gfn) && !sealing.has(gfn)) kept.delete(gfn)
}

/** All of them: the guest stays here. */
export function* giveBackAll(state: SvsmState, migration: Migration): Program {
  for (const gfn of [...migration.guarded.keys()]) {
    yield* keeping(state, migration, gfn, () => giveBack(state, migration, gfn))
  }
}

/**
 * A level's nested page fault, as its VMSA tells of it: one that misses the right to write a page that is watched gets it
 * back. A level that misses a right for another reason would fault for ever: the guest ends.
 */
export function* serveWriteFault(state: SvsmState, migration: Migration, { vmsaGpa, vmpl }: GuestVmsa): Program {
  const info = yield read(vmsaGpa + VMSA.guest_exit_info_1, 8)
  const [infoLo, infoHi] = [info.lo, info.hi]
  if ((infoHi & NPF_INFO1_HI.VMPL) === 0) return
  const { lo, hi } = yield read(vmsaGpa + VMSA.guest_exit_info_2, 8)
  const gfn = Math.floor(toNumber(lo, hi) / PAGE_SIZE)
  if (migration.giving.has(gfn)) return
  if (migration.guarded.has(gfn)) {
    migration.faults++
    yield* keeping(state, migration, gfn, () => giveBack(state, migration, gfn))
    return
  }
  const has = yield* keeping(state, migration, gfn, () => hasRight(state, gfn, vmpl, infoLo))
  // The right may have been taken again since, and then the level faults again.
  if (!has && !migration.guarded.has(gfn)) yield* terminate(TERMINATE.GENERAL)
}

/** Whether the access that faulted would pass now: another CPU may have given the right back meanwhile. */
function* hasRight(state: SvsmState, gfn: number, vmpl: number, infoLo: number): Program<boolean> {
  // The guest's own and rescinded meanwhile: what comes of the access then is no matter of rights. All else is not its.
  if (!state.validated.has(gfn)) return validRegion(state, gfn * PAGE_SIZE, PAGE_SIZE)
  const has = rightsAt(yield* rightsOf(gfn * PAGE_SIZE), vmpl)
  if ((infoLo & NPF_INFO1.W) !== 0) return (has & PERMISSION.WRITE) !== 0
  if ((infoLo & NPF_INFO1.ID) !== 0) return (has & PERMISSION.EXECUTE_SUPERVISOR) !== 0
  return (has & PERMISSION.READ) !== 0
}
