import { type FirmwareRequest, type Ghcb, GuestMessenger, type MessageOutcome, makeShared } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { Program } from "@vmpl-lab/vmpl"
import { MESSAGE_PAGES, svsmMessageGpa } from "./Image.ts"
import { ghcbOf } from "./Interrupts.ts"
import { RwLock } from "./Lock.ts"
import type { SvsmState } from "./State.ts"

/** KEY_SEL: the VLEK where one is loaded, else the VCEK. */
const ANY_KEY = 0

/** How the SVSM speaks with the AMD-SP, under VMPCK0 and for all its CPUs: one message at a time. */
export class FirmwareMessages {
  readonly #state: SvsmState
  readonly #messenger: GuestMessenger
  readonly #gpa: number
  readonly #lock = new RwLock()
  #isShared = false

  /** @param vmpck0 32 bytes, from the secrets page before the guest gets it */
  constructor(state: SvsmState, vmpck0: Uint8Array) {
    this.#state = state
    this.#gpa = svsmMessageGpa(state.parameters.svsm)
    const pages = { request: this.#gpa + MESSAGE_PAGES.REQUEST, response: this.#gpa + MESSAGE_PAGES.RESPONSE }
    const room = { gpa: this.#gpa + MESSAGE_PAGES.CERTIFICATES, pages: MESSAGE_PAGES.CERTIFICATE_COUNT }
    this.#messenger = new GuestMessenger(vmpck0, 0, pages, room)
  }

  /**
   * A report about VMPL0, with room for `certificatePages` pages of certificates; 0: without them.
   * @returns null where the firmware refuses or the host will not carry the message
   */
  report(apicId: number, reportData: Uint8Array, certificatePages: number): Program<MessageOutcome | null> {
    const messenger = this.#messenger
    return this.#speak(apicId, function* (ghcb) {
      if (certificatePages > 0) yield* messenger.clearRoom()
      return yield* messenger.report(ghcb, reportData, 0, ANY_KEY, certificatePages)
    })
  }

  /** Another message. @returns the reply's payload; null where there is none */
  ask(apicId: number, { type, payload }: FirmwareRequest): Program<Uint8Array | null> {
    const messenger = this.#messenger
    return this.#speak(apicId, function* (ghcb) {
      const reply = yield* messenger.ask(ghcb, type, payload, 0)
      return reply.ok ? reply.payload : null
    })
  }

  /** One CPU at a time, with a GHCB of its own. */
  *#speak<A>(apicId: number, say: (ghcb: Ghcb) => Program<A>): Program<A | null> {
    yield* this.#lock.write()
    try {
      if (!(yield* this.#share())) return null
      const ghcb = ghcbOf(this.#state, apicId)
      yield* ghcb.use()
      return yield* say(ghcb)
    } finally {
      this.#lock.release()
    }
  }

  /** The pages become shared with the first message: a guest that asks for nothing pays nothing. */
  *#share(): Program<boolean> {
    for (let page = 0; !this.#isShared && page < MESSAGE_PAGES.SIZE; page += PAGE_SIZE) {
      if (!(yield* makeShared(this.#gpa + page))) return false
    }
    this.#isShared = true
    return true
  }
}
