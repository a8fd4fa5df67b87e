import { createCipheriv, createDecipheriv, createHmac, timingSafeEqual } from "node:crypto"
import type { SevApi } from "./SevPolicy.ts"

/** First byte of a message under the transport integrity key. @spec SEV-API LAUNCH_MEASURE, LAUNCH_SECRET */
const CONTEXT = { SECRET: 0x01, MEASURE: 0x04 } as const

/** Of a packet's flags: its contents are compressed. */
export const PACKET_COMPRESSED = 1

/** What precedes the contents of LAUNCH_SECRET. */
export interface SevPacketHeader {
  readonly flags: number
  /** 16 bytes. */
  readonly iv: Uint8Array
  /** HMAC-SHA-256, 32 bytes. */
  readonly mac: Uint8Array
}

const hmacOf = (tik: Uint8Array, parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const hmac = createHmac("sha256", tik)
  for (const part of parts) hmac.update(part)
  return new Uint8Array(hmac.digest())
}

const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}

/** Comparison of two MACs that takes the same time wherever they differ. */
export const isSameMac = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && timingSafeEqual(a, b)

/** The MAC by which the guest's owner binds the policy to a session. @spec SEV-API LAUNCH_START */
export const policyMac = (tik: Uint8Array, policy: number): Uint8Array => hmacOf(tik, [u32(policy)])

export interface MeasuredLaunch extends SevApi {
  readonly build: number
  readonly policy: number
  /** LD, 32 bytes. */
  readonly digest: Uint8Array
  /** 16 bytes. */
  readonly mnonce: Uint8Array
}

/**
 * The measurement: HMAC over 0x04, API version, build, policy, LD and MNONCE. The guest's owner, who knows the key and
 * computes LD, compares it before sending a secret. @spec SEV-API LAUNCH_MEASURE
 */
export const sevMeasurement = (tik: Uint8Array, launch: MeasuredLaunch): Uint8Array =>
  hmacOf(tik, [
    Uint8Array.of(CONTEXT.MEASURE, launch.apiMajor, launch.apiMinor, launch.build),
    u32(launch.policy),
    launch.digest,
    launch.mnonce
  ])

/**
 * MAC of a secret: HMAC over 0x01, flags, IV, length in the guest, length sent, the encrypted bytes and the measurement,
 * so that it fits this one launch. @spec SEV-API LAUNCH_SECRET
 */
export const secretMac = (
  tik: Uint8Array,
  header: Pick<SevPacketHeader, "flags" | "iv">,
  data: Uint8Array,
  measurement: Uint8Array
): Uint8Array =>
  hmacOf(tik, [
    Uint8Array.of(CONTEXT.SECRET),
    u32(header.flags),
    header.iv,
    u32(data.length),
    u32(data.length),
    data,
    measurement
  ])

/** AES-128-CTR with the transport encryption key. */
export const openSecret = (tek: Uint8Array, iv: Uint8Array, data: Uint8Array): Uint8Array =>
  new Uint8Array(createDecipheriv("aes-128-ctr", tek, iv).update(data))

/** What the guest's owner does for LAUNCH_SECRET: encrypts a secret and binds it to the measurement. */
export const sealSecret = (
  keys: { readonly tek: Uint8Array; readonly tik: Uint8Array },
  secret: { readonly iv: Uint8Array; readonly data: Uint8Array; readonly measurement: Uint8Array }
): { readonly header: SevPacketHeader; readonly data: Uint8Array } => {
  const data = new Uint8Array(createCipheriv("aes-128-ctr", keys.tek, secret.iv).update(secret.data))
  const header = { flags: 0, iv: secret.iv }
  return { header: { ...header, mac: secretMac(keys.tik, header, data, secret.measurement) }, data }
}
