import { createCipheriv, createDecipheriv } from "node:crypto"
import { PAGE_4K, PAGES_PER_2M, Rmp } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { expect } from "vitest"
import {
  type GuestRequest,
  type LaunchFinish,
  type LaunchStart,
  PAGE_TYPE,
  POLICY,
  SnpFirmware,
  type SnpFirmwareOptions
} from "../src/index.ts"
import { KeyedMemory } from "./support.ts"

export const GCTX = 1
export const OTHER_GCTX = 2
export const REQUEST = 3
export const RESPONSE = 4
export const PAGE = 8
export const RMP_FRAME = 100
export const LARGE_PAGE = PAGES_PER_2M
export const ASID = 5
export const POLICY_OK = POLICY.SMT | POLICY.RESERVED_MUST_BE_ONE
export const HOST_DATA = Uint8Array.from({ length: 32 }, (_, i) => 0xc0 + i)

/** What a guest puts on a message; offsets and values are those of the facts, and not taken from the sources. */
export interface Sealing {
  readonly key: Uint8Array
  readonly vmpck: number
  readonly sequence: bigint
  readonly type: number
  readonly payload: Uint8Array
  readonly version?: number
  /** Bytes of the header to be overwritten before it is authenticated, by offset. */
  readonly header?: Readonly<Record<number, number>>
}

const ivOf = (sequence: bigint): Buffer => {
  const iv = Buffer.alloc(12)
  iv.writeBigUInt64LE(sequence)
  return iv
}

/** The guest's half: the frame of a request. */
export const sealGuestRequest = (sealing: Sealing): Uint8Array => {
  const { key, vmpck, sequence, type, payload, version = 1, header = {} } = sealing
  const frame = Buffer.alloc(0x60 + payload.length)
  frame.writeBigUInt64LE(sequence, 0x20)
  frame[0x30] = 1
  frame[0x31] = 1
  frame.writeUInt16LE(0x60, 0x32)
  frame[0x34] = type
  frame[0x35] = version
  frame.writeUInt16LE(payload.length, 0x36)
  frame[0x3c] = vmpck
  for (const [offset, byte] of Object.entries(header)) frame[Number(offset)] = byte
  const cipher = createCipheriv("aes-256-gcm", key, ivOf(sequence))
  cipher.setAAD(frame.subarray(0x30, 0x60))
  frame.set(cipher.update(payload), 0x60)
  cipher.final()
  frame.set(cipher.getAuthTag(), 0)
  return new Uint8Array(frame)
}

export interface Opened {
  readonly sequence: bigint
  readonly type: number
  readonly version: number
  readonly vmpck: number
  readonly payload: Uint8Array
}

/** The guest's half: checks and decrypts a reply; throws where it is not authentic. */
export const openGuestResponse = (key: Uint8Array, page: Uint8Array): Opened => {
  const frame = Buffer.from(page)
  const sequence = frame.readBigUInt64LE(0x20)
  expect([...frame.subarray(0x30, 0x34)]).toEqual([1, 1, 0x60, 0])
  expect([...frame.subarray(0x10, 0x20), ...frame.subarray(0x38, 0x3c)].every((byte) => byte === 0)).toBe(true)
  const decipher = createDecipheriv("aes-256-gcm", key, ivOf(sequence))
  decipher.setAAD(frame.subarray(0x30, 0x60))
  decipher.setAuthTag(frame.subarray(0, 16))
  const payload = decipher.update(frame.subarray(0x60, 0x60 + frame.readUInt16LE(0x36)))
  decipher.final()
  return { sequence, type: frame[0x34]!, version: frame[0x35]!, vmpck: frame[0x3c]!, payload: new Uint8Array(payload) }
}

/** Bytes from rows of offset and contents; numbers are 32 bits, bigints 64, both little-endian. */
export const bytesOf = (size: number, rows: Readonly<Record<number, number | bigint | Uint8Array>>): Uint8Array => {
  const bytes = Buffer.alloc(size)
  for (const [offset, value] of Object.entries(rows)) {
    if (typeof value === "number") bytes.writeUInt32LE(value, Number(offset))
    else if (typeof value === "bigint") bytes.writeBigUInt64LE(value, Number(offset))
    else bytes.set(value, Number(offset))
  }
  return new Uint8Array(bytes)
}

export interface MachineOptions {
  readonly firmware?: Partial<SnpFirmwareOptions>
  readonly start?: Partial<LaunchStart>
  readonly finish?: Partial<LaunchFinish>
  /** False: no page is launched, and the measurement stays zero. */
  readonly isMeasured?: boolean
  /** False: the guest stays in LAUNCH. */
  readonly isFinished?: boolean
}

/** A platform with a running guest of one measured page, and a page for requests and one for replies. */
export const makeMachine = (options: MachineOptions = {}) => {
  const pages = 4 * PAGES_PER_2M
  const layout = { ...new Rmp({ pages }).layout, ownFrames: [{ first: RMP_FRAME, count: 2 }] }
  const rmp = new Rmp({ layout })
  const memory = new KeyedMemory()
  const firmware = new SnpFirmware(rmp, memory, { seed: 1, ...options.firmware })
  for (const pfn of [GCTX, OTHER_GCTX, RESPONSE]) rmp.rmpupdate(pfn, true, PAGE_4K, true, 0, 0)
  expect(firmware.gctxCreate(GCTX)).toBe("SUCCESS")
  expect(firmware.launchStart({ gctx: GCTX, policy: POLICY_OK, ...options.start })).toBe("SUCCESS")
  expect(firmware.activate(GCTX, ASID)).toBe("SUCCESS")
  rmp.rmpupdate(PAGE, true, PAGE_4K, true, 0x800, ASID)
  memory.writePlain(PAGE, new Uint8Array(PAGE_SIZE).fill(7))
  if (options.isMeasured !== false)
    expect(firmware.launchUpdate({ gctx: GCTX, pfn: PAGE, pageSize: PAGE_4K, pageType: PAGE_TYPE.NORMAL })).toBe(
      "SUCCESS"
    )
  if (options.isFinished !== false)
    expect(firmware.launchFinish({ gctx: GCTX, hostData: HOST_DATA, ...options.finish })).toBe("SUCCESS")
  const guest = firmware.guest(GCTX)!

  /** Puts a frame into the request page, the rest of which is not zero. */
  const put = (frame: Uint8Array, offset = 0): void => {
    const page = new Uint8Array(PAGE_SIZE).fill(0xee)
    page.set(frame, offset)
    memory.writePlain(REQUEST, page)
  }
  const run = (change: Partial<GuestRequest> = {}) =>
    firmware.guestRequest({ gctx: GCTX, requestPfn: REQUEST, responsePfn: RESPONSE, ...change })
  const seal = (sealing: Partial<Sealing> & Pick<Sealing, "type" | "payload">): Uint8Array => {
    const { vmpck = 0 } = sealing
    const sequence = guest.messageCount[vmpck]! + 1n
    return sealGuestRequest({ key: guest.vmpck[vmpck]!, vmpck, sequence, ...sealing })
  }
  /** Sends one message that the command must take, and opens the reply. */
  const ask = (type: number, payload: Uint8Array, vmpck = 0): Opened & { readonly status: number } => {
    const sequence = guest.messageCount[vmpck]! + 1n
    put(seal({ type, payload, vmpck }))
    expect(run()).toBe("SUCCESS")
    const reply = openGuestResponse(guest.vmpck[vmpck]!, memory.readPlain(RESPONSE))
    expect(reply).toMatchObject({ sequence: sequence + 1n, type: type + 1, version: 1, vmpck })
    return { ...reply, status: Buffer.from(reply.payload).readUInt32LE(0) }
  }
  return { rmp, memory, firmware, guest, put, run, seal, ask }
}
