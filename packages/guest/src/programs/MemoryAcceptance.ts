import { PAGE_SIZE, PSC_OP, type PscEntry, TERMINATE } from "@vmpl-lab/sev-es"
import { type Program, read, write, writeBytes } from "@vmpl-lab/vmpl"
import { acceptCall, acceptRange, unitBytes } from "../AcceptRange.ts"
import { pageStateChanges } from "../ghcb/PageStateChanges.ts"
import { terminate } from "../MsrProtocol.ts"
import { type PvalidateEntry, pvalidateList } from "../PvalidateList.ts"
import { CORE_CALL, PROTOCOL, SVSM_RESULT } from "../SvsmCall.ts"
import { BLOCK, blockOf, CALL_KIND, type GuestPlan } from "./GuestPlan.ts"
import type { Hands } from "./Hands.ts"
import { now } from "./Pace.ts"

const SIZE_2M = 0x20_0000
/** @spec APM2 15.36.6 */
const PVALIDATE_SIZEMISMATCH = SVSM_RESULT.FAIL_BASE + 6
/** Offset of the index of the next entry in a list. */
const LIST_NEXT = 2

/** Memory that a guest accepts, from `gpa` on in whole 2 MiB regions, and how. */
export interface AcceptancePlan {
  readonly gpa: number
  readonly bytes: number
  /** Size of the entries that are tried first. */
  readonly is2m: boolean
  readonly entriesPerList: number
  /** The SVSM is told a range and does all of it; else the guest changes page states and lists pages. */
  readonly byRange?: boolean
  /** vCPUs that accept, from APIC ID 0 on. */
  readonly acceptors: number
}

/** The part of one vCPU: regions in a row, all that accept alike but for the remainder. */
export const shareOf = ({ gpa, bytes, acceptors }: AcceptancePlan, apicId: number) => {
  const regions = bytes / SIZE_2M
  const first = Math.floor((regions * apicId) / acceptors)
  const end = Math.floor((regions * (apicId + 1)) / acceptors)
  return { gpa: gpa + first * SIZE_2M, bytes: (end - first) * SIZE_2M }
}

/**
 * One vCPU accepts its share as Linux does: for each batch a page state change to private, then the same pages through
 * the SVSM; 2 MiB entries that the RMP has as 4 KiB ones are done again page by page.
 * @spec Linux __set_pages_state, svsm_pval_pages
 */
export function* acceptMemory(plan: AcceptancePlan, guest: GuestPlan, apicId: number, hands: Hands): Program {
  if (apicId >= plan.acceptors) return
  const share = shareOf(plan, apicId)
  const beginNs = yield* now()
  const acceptance = new Acceptance(plan, guest, apicId, hands)
  if (plan.byRange === true) yield* acceptance.inOneCall(share.gpa, share.bytes, plan.is2m)
  else yield* acceptance.range(share.gpa, share.bytes, plan.is2m)
  const { pageStateNs, calls, fallbacks } = acceptance
  const endNs = yield* now()
  guest.report.accepted?.(apicId, { bytes: share.bytes, beginNs, endNs, pageStateNs, calls, fallbacks })
}

class Acceptance {
  pageStateNs = 0
  calls = 0
  fallbacks = 0
  readonly #plan: AcceptancePlan
  readonly #guest: GuestPlan
  readonly #apicId: number
  readonly #hands: Hands

  constructor(plan: AcceptancePlan, guest: GuestPlan, apicId: number, hands: Hands) {
    this.#plan = plan
    this.#guest = guest
    this.#apicId = apicId
    this.#hands = hands
  }

  *range(gpa: number, bytes: number, is2m: boolean): Program {
    const size = is2m ? SIZE_2M : PAGE_SIZE
    const batch = this.#plan.entriesPerList * size
    for (let start = gpa; start < gpa + bytes; start += batch) {
      const pages = Math.min(batch, gpa + bytes - start) / size
      const entries = Array.from({ length: pages }, (_, i) => ({ gpa: start + i * size, validate: true, is2m }))
      yield* this.#makePrivate(entries)
      yield* this.#validate(entries)
    }
  }

  /** By the memory acceptance protocol: the SVSM asks the host too, and finds out about 4 KiB pages itself. */
  *inOneCall(gpa: number, bytes: number, is2m: boolean): Program {
    if (bytes === 0) return
    const { svsm, guard } = this.#hands
    const result = yield* acceptRange((rcx, rdx, r8) => guard(acceptCall(svsm)(rcx, rdx, r8)), {
      gpa,
      units: bytes / unitBytes(is2m),
      is2m
    })
    this.calls++
    this.#guest.report.called(this.#apicId, CALL_KIND.PVALIDATE, result)
    if (result !== SVSM_RESULT.SUCCESS) yield* terminate(TERMINATE.PVALIDATE)
  }

  *#makePrivate(entries: ReadonlyArray<PvalidateEntry>): Program {
    const begin = yield* now()
    const changes = entries.map(
      ({ gpa, is2m }): PscEntry => ({
        curPage: 0,
        gfn: gpa / PAGE_SIZE,
        operation: PSC_OP.PRIVATE,
        is2m: is2m === true
      })
    )
    const { ghcb, guard } = this.#hands
    if (!(yield* guard(pageStateChanges(ghcb, changes))).ok) yield* terminate(TERMINATE.PSC)
    this.pageStateNs += (yield* now()) - begin
  }

  /** One list, called again behind every entry that needs 4 KiB pages; these follow when it is through. */
  *#validate(entries: ReadonlyArray<PvalidateEntry>): Program {
    const { svsm, guard } = this.#hands
    const list = blockOf(this.#guest, this.#apicId) + BLOCK.LIST
    const mismatched: Array<number> = []
    yield writeBytes(list, pvalidateList(entries))
    for (let next = 0; next < entries.length; ) {
      this.calls++
      const result = yield* guard(svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: list }))
      this.#guest.report.called(this.#apicId, CALL_KIND.PVALIDATE, result)
      if (result === SVSM_RESULT.SUCCESS) break
      const failed = (yield read(list + LIST_NEXT, 2)).lo
      const entry = entries[failed]
      if (result !== PVALIDATE_SIZEMISMATCH || entry?.is2m !== true) return yield* terminate(TERMINATE.PVALIDATE)
      mismatched.push(entry.gpa)
      next = failed + 1
      yield write(list + LIST_NEXT, 2, next)
    }
    this.fallbacks += mismatched.length
    for (const gpa of mismatched) yield* this.#pageByPage(gpa)
  }

  /** The pages of one region, which are private already. */
  *#pageByPage(gpa: number): Program {
    const entries = Array.from({ length: SIZE_2M / PAGE_SIZE }, (_, i) => ({
      gpa: gpa + i * PAGE_SIZE,
      validate: true
    }))
    for (let i = 0; i < entries.length; i += this.#plan.entriesPerList) {
      yield* this.#validate(entries.slice(i, i + this.#plan.entriesPerList))
    }
  }
}
