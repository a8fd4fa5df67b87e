import { MESSAGE_TYPE } from "@vmpl-lab/sev-es"

/** A message to the AMD-SP. */
export interface FirmwareRequest {
  readonly type: number
  readonly payload: Uint8Array
}

/** What a derived key is bound to. */
export interface KeyOptions {
  /** `guest`: the VMRK, which moves with the guest; `chip`: a key of this chip and its firmware. */
  readonly root: "chip" | "guest"
  /** GUEST_FIELD_SELECT: bit 0 policy, 1 image ID, 2 family ID, 3 measurement, 4 SVN, 5 TCB version. */
  readonly fields: number
  /** Bound as given: a level not more privileged than the one that asks. */
  readonly vmpl: number
  readonly guestSvn?: number
}

/** What SecureTSC needs to know of the platform's counter. */
export interface TscInfo {
  /** 8 bits before the point, 32 behind it. */
  readonly scale: bigint
  readonly offset: bigint
  /** Deviation of the TSC from its nominal frequency, in 0.001 %. */
  readonly factor: number
}

/** @spec SNP-ABI MSG_KEY_REQ, MSG_KEY_RSP */
const KEY = { SELECT: 0x00, FIELDS: 0x08, VMPL: 0x10, SVN: 0x14, SIZE: 0x20, REPLY_KEY: 0x20, KEY_SIZE: 32 } as const
const ROOT_VMRK = 1
/** @spec SNP-ABI MSG_TSC_INFO_REQ, MSG_TSC_INFO_RSP */
const TSC = { SIZE: 0x80, SCALE: 0x08, OFFSET: 0x10, FACTOR: 0x18 } as const

export const keyRequest = ({ root, fields, vmpl, guestSvn = 0 }: KeyOptions): FirmwareRequest => {
  const payload = new Uint8Array(KEY.SIZE)
  const view = new DataView(payload.buffer)
  view.setUint32(KEY.SELECT, root === "guest" ? ROOT_VMRK : 0, true)
  view.setBigUint64(KEY.FIELDS, BigInt(fields), true)
  view.setUint32(KEY.VMPL, vmpl, true)
  view.setUint32(KEY.SVN, guestSvn, true)
  return { type: MESSAGE_TYPE.KEY_REQ, payload }
}

/** The 32 bytes of a key; null where the firmware has refused. */
export const keyOf = (reply: Uint8Array): Uint8Array | null =>
  statusOf(reply) === 0 && reply.length >= KEY.REPLY_KEY + KEY.KEY_SIZE
    ? reply.slice(KEY.REPLY_KEY, KEY.REPLY_KEY + KEY.KEY_SIZE)
    : null

export const tscInfoRequest = (): FirmwareRequest => ({
  type: MESSAGE_TYPE.TSC_INFO_REQ,
  payload: new Uint8Array(TSC.SIZE)
})

/** Null where the firmware has refused. */
export const tscInfoOf = (reply: Uint8Array): TscInfo | null => {
  if (statusOf(reply) !== 0 || reply.length < TSC.SIZE) return null
  const view = new DataView(reply.buffer, reply.byteOffset)
  return {
    scale: view.getBigUint64(TSC.SCALE, true),
    offset: view.getBigUint64(TSC.OFFSET, true),
    factor: view.getUint32(TSC.FACTOR, true)
  }
}

/** The first word of every reply; a short one counts as refused. */
const statusOf = (reply: Uint8Array): number =>
  reply.length < 4 ? -1 : new DataView(reply.buffer, reply.byteOffset).getUint32(0, true)
