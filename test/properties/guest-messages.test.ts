import { Ghcb, GuestMessenger, type MessageOutcome } from "@vmpl-lab/guest"
import { type PspMemory, REPORT, type SnpFirmware, STATUS } from "@vmpl-lab/psp"
import { Rmp } from "@vmpl-lab/rmp"
import {
  GHCB,
  GHCB_MSR,
  GUEST_MESSAGE_HEADER_SIZE,
  GUEST_REQUEST_ERROR,
  msrInfo,
  NAE,
  PAGE_SIZE,
  REPLY,
  readMessageHeader,
  validByte,
  validMask
} from "@vmpl-lab/sev-es"
import { FirmwareMessages, MESSAGE_PAGES, SvsmState, svsmGhcbGpa, svsmMessageGpa } from "@vmpl-lab/svsm"
import type { Program } from "@vmpl-lab/vmpl"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { HostileHost } from "../support/hostile/Host.ts"
import { ScriptedMachine } from "../support/scriptedMachine.ts"

const REQUEST_FRAME = 0x21
const RESPONSE_FRAME = 0x22

/** Memory without keys: messages are sealed by themselves. */
const plainMemory = (): PspMemory => {
  const pages = new Map<number, Uint8Array>()
  const read = (pfn: number): Uint8Array => pages.get(pfn) ?? new Uint8Array(PAGE_SIZE)
  const write = (pfn: number, contents: Uint8Array): void => {
    pages.set(pfn, contents.slice())
  }
  const nothing = (): void => {}
  return {
    readPlain: read,
    writePlain: write,
    readEncrypted: read,
    writeEncrypted: (pfn, _, contents) => write(pfn, contents),
    createKey: nothing,
    destroyKey: nothing
  }
}

/** Who asks: two levels of the guest with keys of their own, and the SVSM. */
const ASKERS = ["VMPCK2", "VMPCK3", "SVSM"] as const
type AskerName = (typeof ASKERS)[number]
const SVSM = { gpa: 0x40_0000, size: 0x20_0000 } as const
const GUEST_PAGES = { VMPCK2: 0x1_0000, VMPCK3: 0x2_0000 } as const

interface Asker {
  readonly request: number
  readonly response: number
  readonly ask: (nonce: Uint8Array, pages: number) => Program<MessageOutcome | null>
}

/** What the host does with one message. */
const anyAct = fc.record({
  kind: fc.constantFrom(
    "carry",
    "carry",
    "carry",
    "drop",
    "replay a reply",
    "send an old request",
    "another key's reply",
    "send another key's request",
    "change the request",
    "change the reply",
    "carry twice",
    "raise #GP",
    "malformed",
    "busy",
    "busy once",
    "too little room",
    "status",
    "garbage"
  ),
  pick: fc.nat(0xffff),
  bit: fc.nat(7)
})
type Act = typeof anyAct extends fc.Arbitrary<infer A> ? A : never

/** A guest's messages, a host that does with them what it likes, and the real AMD-SP. */
class Scene {
  readonly machine = new ScriptedMachine()
  readonly askers: { readonly [N in AskerName]: Asker }
  /** Every frame that was handed to the host, by key and number: equal ones are equal, or an IV was used twice. */
  readonly sent = new Map<string, string>()
  /** How often the firmware has answered a frame. */
  readonly answered = new Map<string, number>()
  readonly reused: Array<string> = []
  act: Act = { kind: "carry", pick: 0, bit: 0 }
  exits = 0
  readonly #memory = plainMemory()
  readonly #firmware: SnpFirmware
  readonly #requests: Array<Uint8Array> = []
  readonly #replies: Array<Uint8Array> = []
  #busy = false

  constructor() {
    this.#firmware = HostileHost.launch(new Rmp({ pages: 0x200 }), this.#memory)
    const { vmpck } = this.#firmware.guest(HostileHost.GCTX)!
    const guest = (name: "VMPCK2" | "VMPCK3", key: number): Asker => {
      const gpa = GUEST_PAGES[name]
      const [request, response] = [gpa, gpa + PAGE_SIZE]
      const room = { gpa: gpa + 2 * PAGE_SIZE, pages: 4 }
      const messenger = new GuestMessenger(vmpck[key]!, key, { request, response }, room)
      const ghcb = new Ghcb(gpa + 8 * PAGE_SIZE)
      return {
        request,
        response,
        *ask(nonce, pages) {
          yield* ghcb.use()
          return yield* messenger.report(ghcb, nonce, key, 0, pages)
        }
      }
    }
    const state = new SvsmState()
    state.parameters = { svsm: SVSM } as never
    const messages = new FirmwareMessages(state, vmpck[0])
    const own = svsmMessageGpa(SVSM)
    expect(svsmGhcbGpa(SVSM.gpa, 0)).toBeLessThan(own)
    this.askers = {
      VMPCK2: guest("VMPCK2", 2),
      VMPCK3: guest("VMPCK3", 3),
      SVSM: {
        request: own + MESSAGE_PAGES.REQUEST,
        response: own + MESSAGE_PAGES.RESPONSE,
        ask: (nonce, pages) => messages.report(0, nonce, pages)
      }
    }
    this.machine.onVmgexit = () => this.#exit()
  }

  page(gpa: number): Uint8Array {
    const words = Array.from({ length: PAGE_SIZE / 4 }, (_, i) => this.machine.get(gpa + 4 * i, 4, "shared")[0])
    return new Uint8Array(Uint32Array.from(words).buffer)
  }

  #put(gpa: number, bytes: Uint8Array): void {
    bytes.forEach((byte, i) => {
      this.machine.set(gpa + i, 1, byte, 0, "shared")
    })
  }

  #exit(): void {
    const { machine } = this
    const [lo] = machine.msr
    if (msrInfo(lo) === GHCB_MSR.PSC_REQUEST) {
      machine.msr = [GHCB_MSR.PSC_RESPONSE, 0]
      return
    }
    this.exits++
    const code = machine.get(lo + GHCB.sw_exit_code, 4, "shared")[0]
    const [request] = machine.get(lo + GHCB.sw_exit_info_1, 4, "shared")
    const [response] = machine.get(lo + GHCB.sw_exit_info_2, 4, "shared")
    this.#note(this.page(request))
    this.#perform(lo, code, request, response)
  }

  #note(page: Uint8Array): void {
    const { vmpck, sequence, size } = readMessageHeader(page)
    const frame = page.slice(0, GUEST_MESSAGE_HEADER_SIZE + size)
    const key = `${vmpck} ${sequence}`
    const bytes = Buffer.from(frame).toString("hex")
    if (this.sent.has(key) && this.sent.get(key) !== bytes) this.reused.push(key)
    this.sent.set(key, bytes)
    this.#requests.push(page)
  }

  #perform(ghcb: number, code: number, request: number, response: number): void {
    const { kind, pick } = this.act
    const isExtended = code === NAE.EXTENDED_GUEST_REQUEST
    if (kind === "busy once") this.#busy = !this.#busy
    if (kind === "raise #GP") this.#reply(ghcb, REPLY.INJECT_EXCEPTION, 0x8000_0b0d, 0)
    else if (kind === "malformed") this.#reply(ghcb, REPLY.MALFORMED_INPUT, 5, 0)
    else if (kind === "status") this.#reply(ghcb, REPLY.NO_ACTION, 1 + (pick % 0x20), 0)
    else if (kind === "busy" || (kind === "busy once" && this.#busy))
      this.#reply(ghcb, REPLY.NO_ACTION, 0, GUEST_REQUEST_ERROR.BUSY)
    else if (kind === "too little room" && isExtended) this.#askForRoom(ghcb, [0xffff_ffff, 5, 4, 0][pick % 4]!)
    else {
      const page = this.page(request)
      const { status, reply } = this.#instead(page) ?? this.#carry(page)
      if (reply !== null) this.#put(response, reply)
      this.#reply(ghcb, REPLY.NO_ACTION, status, 0)
    }
  }

  /** What the host does instead of carrying a message and its reply; null: nothing. It says that all went well. */
  #instead(request: Uint8Array): { readonly status: number; readonly reply: Uint8Array | null } | null {
    const { kind, pick, bit } = this.act
    const oneOf = (pages: ReadonlyArray<Uint8Array>): Uint8Array | null => pages[pick % pages.length] ?? null
    const { vmpck } = readMessageHeader(request)
    const ofOther = (pages: ReadonlyArray<Uint8Array>): Uint8Array | null =>
      oneOf(pages.filter((page) => readMessageHeader(page).vmpck !== vmpck))
    const done = (reply: Uint8Array | null) => ({ status: 0, reply })
    switch (kind) {
      case "drop":
        return done(null)
      case "replay a reply":
        return done(oneOf(this.#replies))
      case "another key's reply":
        return done(ofOther(this.#replies))
      case "send an old request":
        return done(this.#carry(oneOf(this.#requests)!).reply)
      case "send another key's request":
        return done(this.#carry(ofOther(this.#requests) ?? request).reply)
      case "change the request":
        return done(this.#carry(this.#flipped(request)).reply)
      case "change the reply":
        return done(this.#flipped(this.#carry(request).reply))
      case "garbage":
        return done(new Uint8Array(PAGE_SIZE).map((_, i) => (i * pick) >>> bit))
      case "carry twice":
        this.#carry(request)
        return null
      default:
        return null
    }
  }

  /** One bit that counts: of the tag's first half, or from what it authenticates on. */
  #flipped(page: Uint8Array): Uint8Array {
    const { pick, bit } = this.act
    const changed = page.slice()
    const at = pick % (GUEST_MESSAGE_HEADER_SIZE + readMessageHeader(page).size)
    changed[at < 0x10 || (at >= 0x30 && at < PAGE_SIZE) ? at : 0]! ^= 1 << bit
    return changed
  }

  #carry(request: Uint8Array): { readonly status: number; readonly reply: Uint8Array } {
    this.#memory.writePlain(REQUEST_FRAME, request)
    const gctx = HostileHost.GCTX
    const status = this.#firmware.guestRequest({ gctx, requestPfn: REQUEST_FRAME, responsePfn: RESPONSE_FRAME })
    const reply = this.#memory.readPlain(RESPONSE_FRAME).slice()
    if (status === "SUCCESS") {
      const { vmpck, sequence } = readMessageHeader(request)
      const key = `${vmpck} ${sequence}`
      this.answered.set(key, (this.answered.get(key) ?? 0) + 1)
      this.#replies.push(reply)
    }
    return { status: STATUS[status], reply }
  }

  #askForRoom(ghcb: number, pages: number): void {
    this.machine.set(ghcb + GHCB.rbx, 8, pages, 0, "shared")
    this.#markValid(ghcb, GHCB.rbx)
    this.#reply(ghcb, REPLY.NO_ACTION, 0, GUEST_REQUEST_ERROR.INVALID_LEN)
  }

  #reply(ghcb: number, outcome: number, lo: number, hi: number): void {
    this.machine.set(ghcb + GHCB.sw_exit_info_1, 8, outcome, 0, "shared")
    this.machine.set(ghcb + GHCB.sw_exit_info_2, 8, lo, hi, "shared")
    this.#markValid(ghcb, GHCB.sw_exit_info_2)
  }

  #markValid(ghcb: number, field: number): void {
    const at = ghcb + validByte(field)
    this.machine.set(at, 1, this.machine.get(at, 1, "shared")[0] | validMask(field), 0, "shared")
  }
}

const nonceOf = (number: number): Uint8Array => new Uint8Array(64).fill(number)

/** Why a message must not have come through, by what the host did. */
const HONEST: ReadonlySet<Act["kind"]> = new Set(["carry", "busy once"])

const turn = fc.record({ asker: fc.constantFrom(...ASKERS), pages: fc.constantFrom(0, 0, 4), act: anyAct })

describe("guest messages through a host that does with them what it likes", () => {
  const came = new Map<string, number>()

  it("bring the report that was asked for or end the key, and never use an IV twice", () => {
    fc.assert(
      fc.property(fc.array(turn, { minLength: 1, maxLength: 8 }), (turns) => {
        const scene = new Scene()
        const isOver = new Set<AskerName>()
        for (const [i, { asker, pages, act }] of turns.entries()) {
          scene.act = act
          const before = scene.exits
          const outcome = scene.machine.run(scene.askers[asker].ask(nonceOf(i + 1), pages))
          if (outcome === "halted") throw new Error("the guest has ended")
          const key = outcome?.ok === true ? "came" : "did not come"
          came.set(`${act.kind}: ${key}`, (came.get(`${act.kind}: ${key}`) ?? 0) + 1)
          // A key that was given up says nothing any more.
          if (isOver.has(asker)) expect([outcome?.ok, scene.exits]).toEqual([false, before])
          else if (outcome?.ok === true) {
            const data = outcome.payload.subarray(REPORT.report_data, REPORT.report_data + 64)
            expect(Buffer.compare(data, nonceOf(i + 1))).toBe(0)
          } else if (outcome?.pagesNeeded === 0) {
            isOver.add(asker)
            expect(HONEST.has(act.kind)).toBe(false)
          } else expect(act.kind).toBe("too little room")
          if (act.kind === "busy") expect(scene.exits - before).toBeLessThanOrEqual(31)
        }
        expect(scene.reused).toEqual([])
        expect([...scene.answered.values()].every((times) => times === 1)).toBe(true)
      }),
      { seed: 1, numRuns: 150 }
    )
  }, 120_000)

  it("have met each act of the host, with what it leads to", () => {
    const outcomes = (kind: Act["kind"]): ReadonlyArray<boolean> =>
      ["came", "did not come"].map((what) => (came.get(`${kind}: ${what}`) ?? 0) > 0)
    for (const kind of ["carry", "busy once"] as const) expect([kind, outcomes(kind)[0]]).toEqual([kind, true])
    for (const kind of [
      "drop",
      "replay a reply",
      "another key's reply",
      "change the request",
      "change the reply"
    ] as const)
      expect([kind, outcomes(kind)]).toEqual([kind, [false, true]])
    for (const kind of ["raise #GP", "malformed", "status", "busy", "garbage", "carry twice"] as const)
      expect([kind, outcomes(kind)]).toEqual([kind, [false, true]])
  })
})
