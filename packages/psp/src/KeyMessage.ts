import { layout, offsetsOf } from "@vmpl-lab/sev-es"
import { firmwareKdf } from "./FirmwareKdf.ts"
import type { GuestContext } from "./GuestContext.ts"
import { selectedKey } from "./KeySelect.ts"
import { type MessageAnswer, type MessageScene, replyOf, viewOf } from "./MessageScene.ts"
import type { EndorsementKey } from "./PlatformIdentity.ts"
import { isTcbWithin, TCB_SIZE } from "./Tcb.ts"

/** Version 1 of the message, and what version 2 has behind it. @spec SNP-ABI MSG_KEY_REQ */
export const KEY_REQUEST_FIELDS = layout([
  ["select", 0x00, 4],
  ["reserved", 0x04, 4],
  ["guest_field_select", 0x08, 8],
  ["vmpl", 0x10, 4],
  ["guest_svn", 0x14, 4],
  ["tcb_version", 0x18, 8],
  ["launch_mit_vector", 0x20, 8]
])
export const KEY_REQUEST = offsetsOf(KEY_REQUEST_FIELDS)

/** @spec SNP-ABI MSG_KEY_RSP */
export const KEY_REPLY_FIELDS = layout([
  ["status", 0x00, 4],
  ["derived_key", 0x20, 32]
])
export const KEY_REPLY = offsetsOf(KEY_REPLY_FIELDS)
export const KEY_REPLY_SIZE = 0x40

/** Of `select`: the root is the guest's VMRK, and not a key of the chip; bits 2 to 1 choose among the chip's. */
export const ROOT_KEY_VMRK = 1
const SELECT_MASK = 7

/** What a guest may have mixed into its key. @spec SNP-ABI GUEST_FIELD_SELECT */
export const GUEST_FIELD = {
  POLICY: 1n << 0n,
  IMAGE_ID: 1n << 1n,
  FAMILY_ID: 1n << 2n,
  MEASUREMENT: 1n << 3n,
  SVN: 1n << 4n,
  TCB: 1n << 5n,
  /** In version 2 of the message only. */
  MITIGATIONS: 1n << 6n
} as const

/** Fields that version 1 knows, and version 2. */
const GUEST_FIELDS_KNOWN: ReadonlyArray<bigint> = [0n, (1n << 6n) - 1n, (1n << 7n) - 1n]

const LABEL = "gmsg-keyreq"
const KEY_SIZE = 32

/** Bytes that are mixed into the key, packed as the firmware has them. Fields that are not selected stay zero. */
const MIX_FIELDS = layout([
  ["select", 0x00, 4],
  ["reserved", 0x04, 4],
  ["guest_field_select", 0x08, 8],
  ["vmpl", 0x10, 4],
  ["guest_svn", 0x14, 4],
  ["tcb_version", 0x18, 8],
  ["policy", 0x20, 8],
  ["image_id", 0x28, 16],
  ["family_id", 0x38, 16],
  ["measurement", 0x48, 32],
  ["host_data", 0x68, 32],
  ["id_block_key", 0x88, 32],
  ["launch_mit_vector", 0xa8, 8]
])
const MIX = offsetsOf(MIX_FIELDS)
/** Without the mitigations, which are there only where they are selected: other keys are those of version 1. */
const MIX_SIZE = 0xa8
const MIX_SIZE_MITIGATIONS = 0xb0

interface KeyRequest {
  readonly select: number
  readonly fields: bigint
  readonly vmpl: number
  readonly svn: number
  /** TCB_VERSION, 8 bytes. */
  readonly tcb: Uint8Array
  readonly mitigations: bigint
}

/** In the select word of what is mixed in: whose digest stands there. */
const ID_KEY_SELECT = { AUTHOR: 2 << 1, ID: 1 << 1 } as const

const mixOf = (guest: GuestContext, request: KeyRequest): Uint8Array => {
  const has = (field: bigint): boolean => (request.fields & field) !== 0n
  const mix = new Uint8Array(has(GUEST_FIELD.MITIGATIONS) ? MIX_SIZE_MITIGATIONS : MIX_SIZE)
  const view = viewOf(mix)
  if (has(GUEST_FIELD.MITIGATIONS)) view.setBigUint64(MIX.launch_mit_vector, request.mitigations, true)
  const { idBinding, authorKeyEn } = guest
  // Without an ID block there is no key to name, whatever LAUNCH_FINISH said of an author.
  const idKey = idBinding === null ? 0 : authorKeyEn ? ID_KEY_SELECT.AUTHOR : ID_KEY_SELECT.ID
  view.setUint32(MIX.select, (request.select & ROOT_KEY_VMRK) | idKey, true)
  view.setBigUint64(MIX.guest_field_select, request.fields, true)
  view.setUint32(MIX.vmpl, request.vmpl, true)
  if (has(GUEST_FIELD.SVN)) view.setUint32(MIX.guest_svn, request.svn, true)
  if (has(GUEST_FIELD.TCB)) mix.set(request.tcb, MIX.tcb_version)
  if (has(GUEST_FIELD.POLICY)) view.setBigUint64(MIX.policy, guest.policy, true)
  // The first 32 of its 48 bytes.
  if (has(GUEST_FIELD.MEASUREMENT)) mix.set(guest.digest.value.subarray(0, 32), MIX.measurement)
  mix.set(guest.hostData, MIX.host_data)
  if (idBinding !== null) {
    if (has(GUEST_FIELD.IMAGE_ID)) mix.set(idBinding.imageId, MIX.image_id)
    if (has(GUEST_FIELD.FAMILY_ID)) mix.set(idBinding.familyId, MIX.family_id)
    const digest = authorKeyEn ? idBinding.authorKeyDigest : idBinding.idKeyDigest
    mix.set(digest.subarray(0, 32), MIX.id_block_key)
  }
  return mix
}

/**
 * The root of a chip's key: that of the reported TCB, or of the TCB asked for. VLEK roots do not follow the request.
 */
const chipRoot = (scene: MessageScene, key: EndorsementKey, request: KeyRequest): Uint8Array => {
  const isAsked = key === "VCEK" && (request.fields & GUEST_FIELD.TCB) !== 0n
  return scene.platform.root(key, isAsked ? request.tcb : scene.platform.tcbBytes(scene.platform.reportedTcb))
}

/**
 * MSG_KEY_REQ: a key that only this chip or this guest can have, bound to what the guest selects. Checks are in the
 * firmware's order.
 * @spec SNP-ABI MSG_KEY_REQ
 * @spec-silent what version 2 does with its mitigation vector, which no text that was read tells: here it must be of
 * mitigations that were in place at the guest's launch, and it is mixed in behind all else
 */
export const answerKey: MessageAnswer = (scene, payload) => {
  const { guest, platform } = scene
  const view = viewOf(payload)
  const request: KeyRequest = {
    select: view.getUint32(KEY_REQUEST.select, true),
    fields: view.getBigUint64(KEY_REQUEST.guest_field_select, true),
    vmpl: view.getUint32(KEY_REQUEST.vmpl, true),
    svn: view.getUint32(KEY_REQUEST.guest_svn, true),
    tcb: payload.subarray(KEY_REQUEST.tcb_version, KEY_REQUEST.tcb_version + TCB_SIZE),
    mitigations: view.getBigUint64(KEY_REQUEST.launch_mit_vector, true)
  }
  const isReservedZero = request.select <= SELECT_MASK && view.getUint32(KEY_REQUEST.reserved, true) === 0
  const isVmrk = (request.select & ROOT_KEY_VMRK) !== 0
  const chipKey = selectedKey(scene, (request.select & SELECT_MASK) >> 1)
  if (!isReservedZero) return replyOf("INVALID_PARAM", KEY_REPLY_SIZE)
  if (!isVmrk && (platform.maskChipKey || chipKey === null)) return replyOf("INVALID_KEY", KEY_REPLY_SIZE)
  if (request.vmpl < scene.vmpck) return replyOf("INVALID_PARAM", KEY_REPLY_SIZE)
  if ((request.fields & ~(GUEST_FIELDS_KNOWN[scene.version] ?? 0n)) !== 0n)
    return replyOf("INVALID_PARAM", KEY_REPLY_SIZE)
  if ((request.fields & GUEST_FIELD.TCB) !== 0n && !isTcbWithin(request.tcb, platform.tcbBytes(platform.committedTcb)))
    return replyOf("INVALID_PARAM", KEY_REPLY_SIZE)
  if ((request.fields & GUEST_FIELD.SVN) !== 0n && request.svn > (guest.idBinding?.svn ?? 0))
    return replyOf("INVALID_PARAM", KEY_REPLY_SIZE)
  const isOfLaunch = (request.mitigations & ~guest.launchMitigations) === 0n
  if ((request.fields & GUEST_FIELD.MITIGATIONS) !== 0n && !isOfLaunch) return replyOf("INVALID_PARAM", KEY_REPLY_SIZE)
  const root = isVmrk || chipKey === null ? guest.vmrk : chipRoot(scene, chipKey, request)
  const reply = replyOf("SUCCESS", KEY_REPLY_SIZE)
  reply.set(firmwareKdf(root, LABEL, mixOf(guest, request), KEY_SIZE), KEY_REPLY.derived_key)
  return reply
}
