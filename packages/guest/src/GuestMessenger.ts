import {
  GUEST_REQUEST_ERROR,
  MESSAGE_TYPE,
  openMessage,
  PAGE_SIZE,
  readMessageHeader,
  sealMessage
} from "@vmpl-lab/sev-es"
import { GuestException, OP, type Program, writeBytesShared } from "@vmpl-lab/vmpl"
import type { Ghcb } from "./Ghcb.ts"
import { type Outcome, vmmError } from "./ghcb/Exchange.ts"
import {
  type CertificateArea,
  extendedGuestRequest,
  type GuestRequestPages,
  type GuestRequestResult,
  guestRequest
} from "./ghcb/GuestRequest.ts"
import { copyBytes } from "./ghcb/SharedMemory.ts"

/** What came of a message: the reply's payload, or why there is none. */
export type MessageOutcome =
  | { readonly ok: true; readonly payload: Uint8Array; readonly certificates: Uint8Array }
  /** The host has more certificates than fit; the message has been used up nevertheless. */
  | { readonly ok: false; readonly pagesNeeded: number }
  /** The key is given up: nothing more can be said under it. */
  | { readonly ok: false; readonly pagesNeeded: 0 }

const GIVEN_UP = { ok: false, pagesNeeded: 0 } as const

/** Fields of MSG_REPORT_REQ and its reply. @spec SNP-ABI MSG_REPORT_REQ, MSG_REPORT_RSP */
const REPORT_REQUEST = { VMPL: 0x40, KEY_SELECT: 0x44, SIZE: 0x60 } as const
const REPORT_REPLY = { STATUS: 0x00, SIZE: 0x04, REPORT: 0x20 } as const

/** The version of all messages. */
const VERSION = 1

/**
 * Speaks with the AMD-SP under one VMPCK, through a hypervisor that sees only sealed messages. After any failure that it
 * cannot repeat byte by byte it gives the key up: another message under the same number would use an IV twice.
 * @spec SNP-ABI SNP_GUEST_REQUEST; Linux drivers/virt/coco/sev-guest
 */
export class GuestMessenger {
  readonly #key: Uint8Array
  readonly #vmpck: number
  readonly #pages: GuestRequestPages
  readonly #room: CertificateArea
  /** Number of the latest message; 0 before the first. */
  #sequence = 0n
  #isGivenUp = false

  /**
   * @param key VMPCK with the number `vmpck`, 32 bytes
   * @param pages two shared pages
   * @param room shared pages for certificates, of which there may be none
   */
  constructor(key: Uint8Array, vmpck: number, pages: GuestRequestPages, room: CertificateArea) {
    this.#key = key.slice()
    this.#vmpck = vmpck
    this.#pages = pages
    this.#room = room
  }

  get isGivenUp(): boolean {
    return this.#isGivenUp
  }

  /** Sends a request and opens the reply. `certificatePages` of the room may be filled; 0: no extended request. */
  *ask(ghcb: Ghcb, type: number, payload: Uint8Array, certificatePages: number): Program<MessageOutcome> {
    if (this.#isGivenUp) return GIVEN_UP
    this.#isGivenUp = true
    const label = { sequence: this.#sequence + 1n, type, version: VERSION, vmpck: this.#vmpck }
    yield* copyBytes(OP.WRITE_BYTES, this.#pages.request, sealMessage(this.#key, label, payload), false)
    const room = { gpa: this.#room.gpa, pages: Math.min(certificatePages, this.#room.pages) }
    let sent = yield* carried(
      room.pages > 0 ? extendedGuestRequest(ghcb, this.#pages, room) : guestRequest(ghcb, this.#pages)
    )
    let pagesNeeded = 0
    if (sent.ok && sent.value.vmmError === GUEST_REQUEST_ERROR.INVALID_LEN) {
      pagesNeeded = sent.value.pagesNeeded
      sent = yield* carried(guestRequest(ghcb, this.#pages))
    }
    if (!sent.ok || !isDone(sent.value)) return GIVEN_UP
    const reply = yield* this.#open(label)
    if (reply === null) return GIVEN_UP
    this.#sequence += 2n
    this.#isGivenUp = false
    if (pagesNeeded > 0) return { ok: false, pagesNeeded }
    return { ok: true, payload: reply, certificates: yield* certificatesIn(room) }
  }

  /** MSG_REPORT_REQ: the report, or null when it or the message was refused. `reportData` has 64 bytes. */
  *report(
    ghcb: Ghcb,
    reportData: Uint8Array,
    vmpl: number,
    keySelect: number,
    certificatePages: number
  ): Program<MessageOutcome | null> {
    const request = new Uint8Array(REPORT_REQUEST.SIZE)
    const view = new DataView(request.buffer)
    request.set(reportData)
    view.setUint32(REPORT_REQUEST.VMPL, vmpl, true)
    view.setUint32(REPORT_REQUEST.KEY_SELECT, keySelect, true)
    const reply = yield* this.ask(ghcb, MESSAGE_TYPE.REPORT_REQ, request, certificatePages)
    if (!reply.ok) return reply
    const { payload } = reply
    if (payload.length < REPORT_REPLY.REPORT) return null
    const words = new DataView(payload.buffer, payload.byteOffset)
    const size = words.getUint32(REPORT_REPLY.SIZE, true)
    if (words.getUint32(REPORT_REPLY.STATUS, true) !== 0 || REPORT_REPLY.REPORT + size > payload.length) return null
    return { ...reply, payload: payload.slice(REPORT_REPLY.REPORT, REPORT_REPLY.REPORT + size) }
  }

  /** The reply to a request; null where it is not the one: replayed, reordered, forged, or of another kind. */
  *#open(request: { readonly sequence: bigint; readonly type: number }): Program<Uint8Array | null> {
    const page = new Uint8Array(PAGE_SIZE)
    yield* copyBytes(OP.READ_BYTES, this.#pages.response, page, false)
    const header = readMessageHeader(page)
    const { sequence, type, version, size, vmpck, algorithm, headerVersion, headerSize } = header
    const isReply = sequence === request.sequence + 1n && type === request.type + 1 && vmpck === this.#vmpck
    const isKnown = version === VERSION && algorithm === 1 && headerVersion === 1
    if (!isReply || !isKnown || headerSize !== HEADER_SIZE || HEADER_SIZE + size > PAGE_SIZE) return null
    return openMessage(this.#key, page.subarray(0, HEADER_SIZE + size))
  }

  /** Clears what a host may have left where certificates are expected. */
  *clearRoom(): Program {
    const { gpa, pages } = this.#room
    for (let i = 0; i < pages; i++) yield writeBytesShared(gpa + i * PAGE_SIZE, new Uint8Array(PAGE_SIZE))
  }
}

/** A hypervisor that asks for an exception in place of an answer has not carried the message. */
function* carried(request: Program<Outcome<GuestRequestResult>>): Program<Outcome<GuestRequestResult>> {
  try {
    return yield* request
  } catch (exception) {
    if (exception instanceof GuestException) return vmmError
    throw exception
  }
}

function* certificatesIn({ gpa, pages }: CertificateArea): Program<Uint8Array> {
  const bytes = new Uint8Array(pages * PAGE_SIZE)
  yield* copyBytes(OP.READ_BYTES, gpa, bytes, false)
  return bytes
}

const HEADER_SIZE = 0x60

const isDone = ({ vmmError, firmware }: GuestRequestResult): boolean => vmmError === 0 && firmware === 0
