// @ghcb 0x80000010
import {
  decodePscEntry,
  encodePscEntry,
  PSC_ENTRY_SIZE,
  PSC_ERROR,
  PSC_HEADER,
  PSC_HEADER_SIZE,
  PSC_INVALID,
  PSC_MAX_ENTRIES,
  PSC_OP,
  type PscEntry,
  REASON
} from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { HANDLED } from "../Errno.ts"
import { EXIT_REASON, type Vcpu } from "../Vcpu.ts"
import type { GhcbExit } from "./GhcbExit.ts"
import { done, refuse } from "./Reply.ts"
import { type ScratchArea, scratchArea } from "./ScratchArea.ts"

const PAGES_PER_2M = 512

/** A run of pages that user space is asked to change at once, and how far the list is done after it. */
interface Run {
  readonly gfn: number
  readonly pages: number
  readonly toPrivate: boolean
  readonly next: number
  /** Entries of the run, all done when user space has served it. */
  readonly entries: ReadonlyArray<number>
}

/**
 * Page state change: walks the list, has user space change one run of adjacent pages after the other, and notes in the
 * list how far it has come. PSMASH and UNSMASH are hints, and done at once.
 * @spec GHCB "page state change"; Linux snp_begin_psc
 */
export const pageStateChange = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const length = PSC_HEADER_SIZE + PSC_MAX_ENTRIES * PSC_ENTRY_SIZE
  const area = scratchArea(vcpu, exit, length, true)
  return area === null ? refuse(vcpu, exit, REASON.INVALID_SCRATCH_AREA) : walk(vcpu, thread, exit, area)
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

const failed = (vcpu: Vcpu, exit: GhcbExit, lo: number, hi: number): number => done(vcpu, exit, lo, hi)

const walk = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit, area: ScratchArea): number => {
  const header = viewOf(area.read(0, PSC_HEADER_SIZE))
  const current = header.getUint16(PSC_HEADER.cur_entry, true)
  const end = header.getUint16(PSC_HEADER.end_entry, true)
  if (end >= PSC_MAX_ENTRIES) return failed(vcpu, exit, PSC_INVALID.HEADER, PSC_ERROR.INVALID)
  for (let index = current; index <= end; ) {
    const entry = entryAt(area, index)
    const pages = entry.is2m ? PAGES_PER_2M : 1
    const aligned = !entry.is2m || entry.gfn % PAGES_PER_2M === 0
    if (entry.curPage > pages || !aligned) return failed(vcpu, exit, PSC_INVALID.ENTRY, PSC_ERROR.INVALID)
    switch (entry.operation) {
      case PSC_OP.PRIVATE:
      case PSC_OP.SHARED: {
        const run = runFrom(area, index, end, entry)
        if (run.pages > 0) return change(vcpu, thread, exit, area, run)
        index = run.next
        break
      }
      case PSC_OP.PSMASH:
      case PSC_OP.UNSMASH:
        finishEntry(area, index, entry)
        index++
        break
      default:
        return failed(vcpu, exit, PSC_INVALID.ENTRY, PSC_ERROR.INVALID)
    }
    putCurrent(area, index)
  }
  return done(vcpu, exit)
}

const entryAt = (area: ScratchArea, index: number): PscEntry => {
  const view = viewOf(area.read(PSC_HEADER_SIZE + index * PSC_ENTRY_SIZE, PSC_ENTRY_SIZE))
  return decodePscEntry(view.getUint32(0, true), view.getUint32(4, true))
}

/** Entries of the same operation and size whose pages follow each other. */
const runFrom = (area: ScratchArea, first: number, end: number, entry: PscEntry): Run => {
  const pagesOf = ({ is2m }: PscEntry): number => (is2m ? PAGES_PER_2M : 1)
  const gfn = entry.gfn + entry.curPage
  let pages = pagesOf(entry) - entry.curPage
  const entries = [first]
  let next = first + 1
  for (; next <= end; next++) {
    const follower = entryAt(area, next)
    const follows =
      follower.operation === entry.operation &&
      follower.is2m === entry.is2m &&
      follower.curPage === 0 &&
      follower.gfn === gfn + pages
    if (!follows) break
    pages += pagesOf(follower)
    entries.push(next)
  }
  return { gfn, pages, toPrivate: entry.operation === PSC_OP.PRIVATE, next, entries }
}

const change = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit, area: ScratchArea, run: Run): number => {
  vcpu.run.exitReason = EXIT_REASON.MAP_GPA_RANGE
  vcpu.run.gfn = run.gfn
  vcpu.run.pages = run.pages
  vcpu.run.toPrivate = run.toPrivate
  vcpu.complete = (self, ret) => {
    if (ret !== 0) return failed(self, exit, 0, PSC_ERROR.GENERIC)
    for (const index of run.entries) finishEntry(area, index, entryAt(area, index))
    putCurrent(area, run.next)
    return walk(self, thread, exit, area)
  }
  return HANDLED.EXIT_TO_USER
}

const finishEntry = (area: ScratchArea, index: number, entry: PscEntry): void => {
  const { lo, hi } = encodePscEntry({ ...entry, curPage: entry.is2m ? PAGES_PER_2M : 1 })
  const bytes = new Uint8Array(PSC_ENTRY_SIZE)
  const view = viewOf(bytes)
  view.setUint32(0, lo, true)
  view.setUint32(4, hi, true)
  area.write(PSC_HEADER_SIZE + index * PSC_ENTRY_SIZE, bytes)
}

const putCurrent = (area: ScratchArea, index: number): void => {
  area.write(PSC_HEADER.cur_entry, Uint8Array.of(index & 0xff, index >>> 8))
}
