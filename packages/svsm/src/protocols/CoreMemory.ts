import { CALLING_AREA, PVALIDATE_LIST_HEADER, SVSM_RESULT } from "@vmpl-lab/guest"
import { hi32, lo32, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, write, zeroPage } from "@vmpl-lab/vmpl"
import { isValidated, mayWrite } from "../GuestAddress.ts"
import type { SvsmState } from "../State.ts"
import { holdList, type ListEntry, listRoom, serveList, whyKept, writeList } from "./PageList.ts"
import { FLUSH_TLBS, grant, revoke, revokeRegion } from "./Permissions.ts"
import { gpaOf, type SvsmRequest } from "./Request.ts"

/** Bits of an entry of DEPOSIT_MEM that must be zero. @spec SVSM 6.5 table 7 */
const RESERVED = 0xffc

/**
 * DEPOSIT_MEM: the pages of a list become the SVSM's alone, until they are withdrawn.
 * @spec SVSM 6.5
 */
export const depositMemory = (state: SvsmState, request: SvsmRequest): Program<number> =>
  serveList(
    state,
    request,
    RESERVED,
    (entry) => deposit(state, request, entry),
    () => tellMemoryAvailable(state)
  )

function* deposit(state: SvsmState, request: SvsmRequest, entry: ListEntry): Program<number> {
  const { gpa, bytes } = entry
  const kept = whyKept(state, request, entry)
  if (kept !== null) return kept
  if (!isValidated(state, gpa, bytes)) return SVSM_RESULT.INVALID_ADDRESS
  const pages = Array.from({ length: bytes / PAGE_SIZE }, (_, i) => gpa / PAGE_SIZE + i)
  for (const gfn of pages) state.changing.add(gfn)
  try {
    if (!(yield* mayWrite(state, request.vmpl, gpa, bytes))) return SVSM_RESULT.INVALID_ADDRESS
    const revoked = bytes === PAGE_SIZE ? yield* revoke(state, gpa) : yield* revokeRegion(state, gpa)
    if (revoked !== SVSM_RESULT.SUCCESS) return revoked
    yield FLUSH_TLBS
    for (const gfn of pages) state.deposited.set(gfn, request.vmpl)
    return SVSM_RESULT.SUCCESS
  } finally {
    for (const gfn of pages) state.changing.delete(gfn)
  }
}

/**
 * WITHDRAW_MEM: fills a list (u16 count, 6 bytes unused, then 4 KiB GPAs) with deposited pages, as many as fit. Each is
 * cleared and granted before the guest reads of it. A caller gets what its level, or a less privileged one, deposited.
 * @spec SVSM 6.6 table 8
 * @spec-silent whose deposit a less privileged level may withdraw
 */
export function* withdrawMemory(state: SvsmState, request: SvsmRequest): Program<number> {
  const list = gpaOf(request.rcxLo, request.rcxHi)
  const { apicId } = request.caller
  const room = listRoom(list)
  if (list % 8 !== 0 || room === 0) return SVSM_RESULT.INVALID_PARAMETER
  yield* state.lock.read()
  try {
    if (!(yield* holdList(state, request, list))) return SVSM_RESULT.INVALID_ADDRESS
    let count = 0
    for (const [gfn, depositor] of state.deposited) {
      if (count === room) break
      if (depositor < request.vmpl || state.changing.has(gfn)) continue
      const given = yield* giveBack(state, request.vmpl, gfn)
      if (given !== SVSM_RESULT.SUCCESS) return given
      const gpa = gfn * PAGE_SIZE
      const entry = list + PVALIDATE_LIST_HEADER + 8 * count++
      const store = write(entry, 8, lo32(gpa), hi32(gpa))
      if (!(yield* writeList(state, request.vmpl, store))) return SVSM_RESULT.INVALID_ADDRESS
    }
    if (!(yield* writeList(state, request.vmpl, write(list, 2, count)))) return SVSM_RESULT.INVALID_ADDRESS
    yield* tellMemoryAvailable(state)
    return SVSM_RESULT.SUCCESS
  } finally {
    state.held[apicId] = undefined
    state.lock.release()
  }
}

function* giveBack(state: SvsmState, vmpl: number, gfn: number): Program<number> {
  const gpa = gfn * PAGE_SIZE
  state.changing.add(gfn)
  try {
    yield zeroPage(gpa)
    const granted = yield* grant(state, gpa, vmpl)
    if (granted === SVSM_RESULT.SUCCESS) state.deposited.delete(gfn)
    return granted
  } finally {
    state.changing.delete(gfn)
  }
}

/** mem_available of the start-up vCPU's calling area: there is something to withdraw. @spec SVSM 6.6 */
function* tellMemoryAvailable(state: SvsmState): Program {
  const startUp = state.registry.find(({ guestOwned }) => !guestOwned)
  if (startUp === undefined) return
  yield write(startUp.caGpa + CALLING_AREA.mem_available, 1, state.deposited.size > 0 ? 1 : 0)
}
