import { POLICY, type PspMemory, SnpFirmware, STATUS } from "@vmpl-lab/psp"
import { PAGE_4K, type Rmp } from "@vmpl-lab/rmp"
import {
  decodePscEntry,
  GHCB,
  GUEST_REQUEST_ERROR,
  NAE,
  PAGE_SIZE,
  PSC_ENTRY_SIZE,
  PSC_ERROR,
  PSC_HEADER_SIZE,
  PSC_MAX_ENTRIES,
  PSC_OP,
  REPLY,
  validByte,
  validMask
} from "@vmpl-lab/sev-es"
import { RandomStream } from "@vmpl-lab/sim"
import { MESSAGE_PAGES, svsmGhcbGpa, svsmMessageGpa } from "@vmpl-lab/svsm"
import { ASID, isShared } from "./Layout.ts"
import type { HostileMachine } from "./Machine.ts"

/** Frames of the host's own. */
const FRAME = { GCTX: 0x20, REQUEST: 0x21, RESPONSE: 0x22 } as const
/** An exception that the host would like the guest to take: #GP. */
const RAISE_GP = 0x8000_0b0d

/** The host's half of VMPL0's GHCB page events, honest or not. */
export class HostileHost {
  static readonly GCTX: number = FRAME.GCTX
  readonly #machine: HostileMachine
  readonly #firmware: SnpFirmware
  readonly #random: RandomStream
  /** Replies of before, to be played again. */
  readonly #replies: Array<Uint8Array> = []

  constructor(machine: HostileMachine, firmware: SnpFirmware) {
    this.#machine = machine
    this.#firmware = firmware
    this.#random = new RandomStream(machine.options.seed, "hostile host")
  }

  /** A platform with one running guest, whose pages are not launched. */
  static launch(rmp: Rmp, memory: PspMemory): SnpFirmware {
    const firmware = new SnpFirmware(rmp, memory, { seed: 1 })
    rmp.rmpupdate(FRAME.GCTX, true, PAGE_4K, true, 0, 0)
    rmp.rmpupdate(FRAME.RESPONSE, true, PAGE_4K, true, 0, 0)
    const gctx = FRAME.GCTX
    for (const status of [
      firmware.gctxCreate(gctx),
      firmware.launchStart({ gctx, policy: POLICY.SMT | POLICY.RESERVED_MUST_BE_ONE }),
      firmware.activate(gctx, ASID),
      firmware.launchFinish({ gctx })
    ])
      if (status !== "SUCCESS") throw new Error(`the AMD-SP answers ${status}`)
    return firmware
  }

  /** An event by the page at a GPA. */
  page(gpa: number): void {
    const { host, options } = this.#machine
    const at = this.#machine.frame(gpa) * PAGE_SIZE
    const code = host.read32(at + GHCB.sw_exit_code)
    const isMessage = code === NAE.GUEST_REQUEST || code === NAE.EXTENDED_GUEST_REQUEST
    const [request, response] = [GHCB.sw_exit_info_1, GHCB.sw_exit_info_2].map((field) => host.read32(at + field))
    const messages = svsmMessageGpa(this.#machine.state.parameters.svsm)
    const isWhole = request === messages + MESSAGE_PAGES.REQUEST && response === messages + MESSAGE_PAGES.RESPONSE
    if (code === NAE.PAGE_STATE_CHANGE) this.#changePages(at)
    else if (!isMessage) this.#reply(at, REPLY.NO_ACTION, 0, 0)
    // The host itself has changed the addresses: a sealed reply that it puts elsewhere would be no secret told.
    else if (!isWhole) this.#reply(at, REPLY.MALFORMED_INPUT, 5, 0)
    else if (options.isHostHostile && this.#random.int(0, 5) === 0) this.#lie(at, code, response!)
    else {
      const status = this.#carry(request!, response!)
      this.#reply(at, REPLY.NO_ACTION, status, 0)
    }
  }

  /** A shared page of VMPL0's changes while it is being used: of a GHCB, or of the pages for messages. */
  scribble(): void {
    const { host, rmp, state } = this.#machine
    const { svsm } = state.parameters
    const messages = svsmMessageGpa(svsm)
    const ghcbs = [0, 1].map((cpu) => svsmGhcbGpa(svsm.gpa, cpu))
    const parts = [MESSAGE_PAGES.REQUEST, MESSAGE_PAGES.RESPONSE, MESSAGE_PAGES.CERTIFICATES]
    const pages = [...ghcbs, ...parts.map((part) => messages + part)]
    const pfn = this.#machine.frame(pages[this.#random.int(0, pages.length - 1)]!)
    if (!rmp.checkHypervisorOwned(pfn)) return
    const { sw_exit_code, sw_exit_info_1, sw_exit_info_2, rbx, valid_bitmap } = GHCB
    const fields = [
      sw_exit_code,
      sw_exit_info_1,
      sw_exit_info_2,
      sw_exit_info_2 + 4,
      rbx,
      valid_bitmap,
      // Of a message's header and its payload, and of a table of certificates.
      0x00,
      0x10,
      0x14,
      0x20,
      0x34,
      0x60,
      // Of a list of pages that change.
      GHCB.shared_buffer,
      GHCB.shared_buffer + PSC_HEADER_SIZE
    ]
    const offset = fields[this.#random.int(0, fields.length - 1)]!
    host.write32(pfn * PAGE_SIZE + offset, [0, 1, 2, 0x8000_0b0d, 0xffff_ffff][this.#random.int(0, 4)]!)
  }

  /** Makes pages private that are the host's; one that is hostile refuses now and then, or does nothing. */
  #changePages(at: number): void {
    const { host, options } = this.#machine
    const list = at + GHCB.shared_buffer
    const end = host.read32(list) >>> 16
    const lie = options.isHostHostile ? this.#random.int(0, 7) : -1
    for (let i = 0; i <= end && i < PSC_MAX_ENTRIES && lie !== 0; i++) {
      const entry = list + PSC_HEADER_SIZE + i * PSC_ENTRY_SIZE
      const { gfn, operation, is2m } = decodePscEntry(host.read32(entry), host.read32(entry + 4))
      const gpa = gfn * PAGE_SIZE
      const isOurs = !is2m && isShared(gpa) && !this.#machine.entry(gpa).assigned
      if (operation === PSC_OP.PRIVATE && isOurs) this.#machine.makePrivate(gpa)
    }
    host.write32(list, lie === 1 ? this.#random.int(0, 0x7fff_ffff) : (end << 16) | (end + 1))
    this.#reply(at, REPLY.NO_ACTION, 0, lie === 2 ? PSC_ERROR.GENERIC : 0)
  }

  #reply(at: number, outcome: number, lo: number, hi: number): void {
    const { host } = this.#machine
    host.write64(at + GHCB.sw_exit_info_1, outcome, 0)
    host.write64(at + GHCB.sw_exit_info_2, lo, hi)
    const valid = at + validByte(GHCB.sw_exit_info_2)
    host.write8(valid, host.read8(valid) | validMask(GHCB.sw_exit_info_2))
  }

  /** Brings the message to the AMD-SP and its reply back. @returns the firmware's status */
  #carry(request: number, response: number): number {
    const { host, rmp } = this.#machine
    host.writePage(FRAME.REQUEST, host.readPage(this.#machine.frame(request)))
    const status = this.#firmware.guestRequest({
      gctx: FRAME.GCTX,
      requestPfn: FRAME.REQUEST,
      responsePfn: FRAME.RESPONSE
    })
    const reply = host.readPage(FRAME.RESPONSE)
    this.#replies.push(reply)
    if (rmp.checkHypervisorOwned(this.#machine.frame(response))) host.writePage(this.#machine.frame(response), reply)
    return STATUS[status]
  }

  /** Anything but what was asked for. */
  #lie(at: number, code: number, response: number): void {
    const { host } = this.#machine
    const int = (from: number, to: number): number => this.#random.int(from, to)
    switch (int(0, 5)) {
      case 0:
        this.#reply(at, REPLY.INJECT_EXCEPTION, RAISE_GP, 0)
        break
      case 1:
        this.#reply(at, REPLY.MALFORMED_INPUT, 5, 0)
        break
      case 2:
        this.#reply(at, int(0, 0x7fff_ffff), int(0, 0x7fff_ffff), 3)
        break
      case 3: {
        // A reply of before, or none.
        const old = this.#replies.length === 0 ? null : this.#replies[int(0, this.#replies.length - 1)]!
        if (old !== null) host.writePage(this.#machine.frame(response), old)
        this.#reply(at, REPLY.NO_ACTION, 0, 0)
        break
      }
      case 4:
        this.#reply(at, REPLY.NO_ACTION, 0, GUEST_REQUEST_ERROR.BUSY)
        break
      default:
        this.#askForRoom(at, code === NAE.EXTENDED_GUEST_REQUEST ? [5, 0xffff_ffff][int(0, 1)]! : 0)
    }
  }

  /** So many pages are needed for the certificates, it says. */
  #askForRoom(at: number, pages: number): void {
    const { host } = this.#machine
    host.write64(at + GHCB.rbx, pages, 0)
    const valid = at + validByte(GHCB.rbx)
    host.write8(valid, host.read8(valid) | validMask(GHCB.rbx))
    this.#reply(at, REPLY.NO_ACTION, 0, GUEST_REQUEST_ERROR.INVALID_LEN)
  }
}
