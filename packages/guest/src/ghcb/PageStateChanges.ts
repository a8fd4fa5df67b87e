// @ghcb 0x80000010
import {
  encodePscEntry,
  NAE,
  PSC_ENTRY_SIZE,
  PSC_HEADER,
  PSC_HEADER_SIZE,
  PSC_MAX_ENTRIES,
  type PscEntry
} from "@vmpl-lab/sev-es"
import { type Program, readShared, writeBytesShared } from "@vmpl-lab/vmpl"
import type { Ghcb } from "../Ghcb.ts"
import { type Outcome, REFUSED, vmmError } from "./Exchange.ts"
import { sharedBuffer } from "./SharedMemory.ts"

/** The structure in the scratch area: header and entries, from the first one on. */
const structure = (entries: ReadonlyArray<PscEntry>): Uint8Array => {
  const bytes = new Uint8Array(PSC_HEADER_SIZE + PSC_ENTRY_SIZE * entries.length)
  const view = new DataView(bytes.buffer)
  view.setUint16(PSC_HEADER.end_entry, entries.length - 1, true)
  entries.forEach((entry, i) => {
    const { lo, hi } = encodePscEntry(entry)
    view.setUint32(PSC_HEADER_SIZE + PSC_ENTRY_SIZE * i, lo, true)
    view.setUint32(PSC_HEADER_SIZE + PSC_ENTRY_SIZE * i + 4, hi, true)
  })
  return bytes
}

/**
 * Page state change, event 0x80000010: any number of entries, 253 at a time. REFUSED has sw_exit_info_2 as detail, and
 * then nobody knows how far the hypervisor came.
 */
export function* pageStateChanges(ghcb: Ghcb, entries: ReadonlyArray<PscEntry>): Program<Outcome<null>> {
  for (let first = 0; first < entries.length; first += PSC_MAX_ENTRIES) {
    const some = entries.slice(first, first + PSC_MAX_ENTRIES)
    const reply = yield* ghcb.holding(() => walk(ghcb, some))
    if (!reply.ok) return reply
  }
  return { ok: true, value: null }
}

/**
 * The hypervisor may stop early: it says in cur_entry where it goes on, and is asked again. It must not go back, nor
 * beyond the end, nor move the end.
 * @spec Linux vmgexit_psc
 */
function* walk(ghcb: Ghcb, entries: ReadonlyArray<PscEntry>): Program<Outcome<null>> {
  const scratch = sharedBuffer(ghcb.gpa)
  yield writeBytesShared(scratch, structure(entries))
  for (let current = 0; current < entries.length; ) {
    const reply = yield* ghcb.exchange(NAE.PAGE_STATE_CHANGE, { scratch }, ["info2"])
    if (!reply.ok) return reply
    const { info2 } = reply.value
    if (info2.lo !== 0 || info2.hi !== 0) return { ok: false, reason: REFUSED, detail: info2 }
    const { lo, hi: reserved } = yield readShared(scratch, PSC_HEADER_SIZE)
    const next = lo & 0xffff
    if (reserved !== 0 || lo >>> 16 !== entries.length - 1 || next < current || next > entries.length) return vmmError
    current = next
  }
  return { ok: true, value: null }
}
