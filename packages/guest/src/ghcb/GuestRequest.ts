// @ghcb 0x80000011, 0x80000012
import { GUEST_REQUEST_ERROR, NAE, u64 } from "@vmpl-lab/sev-es"
import { type Program, pause } from "@vmpl-lab/vmpl"
import type { Ghcb } from "../Ghcb.ts"
import { type EventFields, type Outcome, replyRegister, vmmError } from "./Exchange.ts"

/** Pages of a guest request, each 4 KiB aligned, shared, and different from the other. */
export interface GuestRequestPages {
  readonly request: number
  readonly response: number
}

/** Where the extended request wants the certificates. */
export interface CertificateArea {
  readonly gpa: number
  readonly pages: number
}

/** How to wait out a busy hypervisor. The message must not change meanwhile: its sequence number is not used up. */
export interface BusyPolicy {
  readonly retries: number
  readonly wait: () => Program
}

/** As Linux: for a minute every two seconds. How long a PAUSE takes is the processor's. */
export const BUSY_POLICY: BusyPolicy = {
  retries: 30,
  *wait() {
    yield pause()
  }
}

/** What came of a guest request that the hypervisor answered as the protocol says. */
export interface GuestRequestResult {
  /** 0, or one of GUEST_REQUEST_ERROR: BUSY after the last retry, INVALID_LEN for a certificate area too small. */
  readonly vmmError: number
  /** Status of the firmware. */
  readonly firmware: number
  /** INVALID_LEN: pages that the certificates need, else 0. */
  readonly pagesNeeded: number
}

/** Guest request, event 0x80000011. */
export const guestRequest = (
  ghcb: Ghcb,
  pages: GuestRequestPages,
  policy: BusyPolicy = BUSY_POLICY
): Program<Outcome<GuestRequestResult>> => ask(ghcb, pages, null, policy)

/** Extended guest request, event 0x80000012: the certificates come along. */
export const extendedGuestRequest = (
  ghcb: Ghcb,
  pages: GuestRequestPages,
  area: CertificateArea,
  policy: BusyPolicy = BUSY_POLICY
): Program<Outcome<GuestRequestResult>> => ask(ghcb, pages, area, policy)

function* ask(
  ghcb: Ghcb,
  { request, response }: GuestRequestPages,
  area: CertificateArea | null,
  { retries, wait }: BusyPolicy
): Program<Outcome<GuestRequestResult>> {
  const fields = { info1: u64(request), info2: u64(response) }
  for (let attempt = 0; ; attempt++) {
    const reply = yield* ghcb.holding(() => (area === null ? plain(ghcb, fields) : extended(ghcb, fields, area)))
    if (!reply.ok || reply.value.vmmError !== GUEST_REQUEST_ERROR.BUSY || attempt === retries) return reply
    yield* wait()
  }
}

function* plain(ghcb: Ghcb, fields: EventFields): Program<Outcome<GuestRequestResult>> {
  const reply = yield* ghcb.exchange(NAE.GUEST_REQUEST, fields, ["info2"])
  if (!reply.ok) return reply
  const { lo: firmware, hi } = reply.value.info2
  if (hi !== 0 && hi !== GUEST_REQUEST_ERROR.BUSY) return vmmError
  return { ok: true, value: { vmmError: hi, firmware, pagesNeeded: 0 } }
}

/** RBX is the hypervisor's only when it says INVALID_LEN, and then it asks for more than it got. */
function* extended(ghcb: Ghcb, fields: EventFields, area: CertificateArea): Program<Outcome<GuestRequestResult>> {
  const given = { ...fields, rax: u64(area.gpa), rbx: u64(area.pages) }
  const reply = yield* ghcb.exchange(NAE.EXTENDED_GUEST_REQUEST, given, ["info2"])
  if (!reply.ok) return reply
  const { lo: firmware, hi } = reply.value.info2
  if (hi === 0 || hi === GUEST_REQUEST_ERROR.BUSY) {
    return { ok: true, value: { vmmError: hi, firmware, pagesNeeded: 0 } }
  }
  if (hi !== GUEST_REQUEST_ERROR.INVALID_LEN) return vmmError
  const rbx = yield* replyRegister(ghcb.gpa, "rbx")
  if (rbx === null || rbx.hi !== 0 || rbx.lo <= area.pages) return vmmError
  return { ok: true, value: { vmmError: hi, firmware, pagesNeeded: rbx.lo } }
}
