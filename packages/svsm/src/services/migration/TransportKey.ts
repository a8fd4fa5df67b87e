import { createECDH, createHash, hkdfSync } from "node:crypto"
import { MIGRATION_ROLE } from "@vmpl-lab/guest"
import { REPORT } from "@vmpl-lab/psp"

/** What a report that was found genuine says. */
export interface PeerReport {
  readonly vmpl: number
  /** 64 bytes. */
  readonly reportData: Uint8Array
  /** Launch digest, 48 bytes. */
  readonly measurement: Uint8Array
  /** What the guest's owner has allowed, debugging by the host among it: no part of the launch digest. */
  readonly policy: bigint
  /** Versions of the platform's firmware, a byte each, 8 bytes. */
  readonly reportedTcb: Uint8Array
}

/** What an SVSM brings to a key agreement. */
export interface TransportOptions {
  /** 48 random bytes, others each time: a private key on P-384. */
  readonly newPrivateKey: () => Uint8Array
  /**
   * Reads a report and checks it with the certificates that came along (a table as the host gives it), up to a root that
   * the SVSM's image names; null where it is not genuine.
   */
  readonly genuine: (report: Uint8Array, certificates: Uint8Array) => PeerReport | null
}

/** AES-256-GCM key for one guest on its way from one SVSM to another. */
export type TransportKey = Uint8Array

const CURVE = "secp384r1"
const PUBLIC_SIZE = 97
/** An offer: u32 role, u32 bytes of the report, u32 bytes of certificates, public key, report, certificates. */
const HEADER_SIZE = 12

/** An offer as read. */
export interface Hello {
  readonly role: number
  readonly publicKey: Uint8Array
  readonly report: Uint8Array
  readonly certificates: Uint8Array
}

/** @param privateKey 48 bytes */
export const publicKeyOf = (privateKey: Uint8Array): Uint8Array => {
  const ecdh = createECDH(CURVE)
  ecdh.setPrivateKey(privateKey)
  return new Uint8Array(ecdh.getPublicKey())
}

/** REPORT_DATA that binds a public key and its role: the report says that the SVSM of this launch made the offer. */
export const boundTo = (role: number, publicKey: Uint8Array): Uint8Array =>
  new Uint8Array(createHash("sha512").update(`vmpl-lab migration 1, role ${role}`).update(publicKey).digest())

export const encodeHello = ({ role, publicKey, report, certificates }: Hello): Uint8Array => {
  const bytes = new Uint8Array(HEADER_SIZE + publicKey.length + report.length + certificates.length)
  const view = new DataView(bytes.buffer)
  ;[role, report.length, certificates.length].forEach((word, i) => {
    view.setUint32(4 * i, word, true)
  })
  bytes.set(publicKey, HEADER_SIZE)
  bytes.set(report, HEADER_SIZE + publicKey.length)
  bytes.set(certificates, HEADER_SIZE + publicKey.length + report.length)
  return bytes
}

/** Null where the sizes do not come to all of the bytes. */
export const decodeHello = (bytes: Uint8Array): Hello | null => {
  if (bytes.length < HEADER_SIZE + PUBLIC_SIZE) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const reportSize = view.getUint32(4, true)
  const certificates = HEADER_SIZE + PUBLIC_SIZE + reportSize
  if (certificates + view.getUint32(8, true) !== bytes.length) return null
  return {
    role: view.getUint32(0, true),
    publicKey: bytes.slice(HEADER_SIZE, HEADER_SIZE + PUBLIC_SIZE),
    report: bytes.slice(HEADER_SIZE + PUBLIC_SIZE, certificates),
    certificates: bytes.slice(certificates)
  }
}

const MEASUREMENT_SIZE = 48
const TCB_SIZE = 8

/** A field of this SVSM's own report. */
const fieldOf = ({ report }: Hello, offset: number, size: number): Uint8Array => report.subarray(offset, offset + size)

/** What this SVSM's own report says that its guest's owner has allowed. */
const policyOf = ({ report }: Hello): bigint =>
  new DataView(report.buffer, report.byteOffset).getBigUint64(REPORT.policy, true)

/** No part of the firmware there is older than here: a guest is not given to a platform that is less safe. */
const isNoOlder = (tcb: Uint8Array, own: Hello): boolean =>
  fieldOf(own, REPORT.reported_tcb, TCB_SIZE).every((version, part) => tcb[part]! >= version)

/** Whether the other side is the SVSM of a like launch, at VMPL0, and the offer is its own. */
const isTrusted = ({ genuine }: Pick<TransportOptions, "genuine">, own: Hello, peer: Hello): boolean => {
  if (peer.role === own.role) return false
  const report = genuine(peer.report, peer.certificates)
  return (
    report !== null &&
    report.vmpl === 0 &&
    Buffer.compare(report.reportData, boundTo(peer.role, peer.publicKey)) === 0 &&
    Buffer.compare(report.measurement, fieldOf(own, REPORT.measurement, MEASUREMENT_SIZE)) === 0 &&
    report.policy === policyOf(own) &&
    (own.role !== MIGRATION_ROLE.SOURCE || isNoOlder(report.reportedTcb, own))
  )
}

/**
 * ECDH on P-384, then HKDF with SHA-384 over both offers: who sees another offer than was made gets another key.
 * @param privateKey 48 bytes, of this side's offer
 * @param own this side's offer; @param other the other side's
 * @returns null where the other side is not trusted
 */
export const agree = (
  options: Pick<TransportOptions, "genuine">,
  privateKey: Uint8Array,
  own: Uint8Array,
  other: Uint8Array
): TransportKey | null => {
  const mine = decodeHello(own)
  const peer = decodeHello(other)
  if (mine === null || peer === null || !isTrusted(options, mine, peer)) return null
  const ecdh = createECDH(CURVE)
  ecdh.setPrivateKey(privateKey)
  let secret: Uint8Array
  try {
    secret = ecdh.computeSecret(peer.publicKey)
  } catch {
    // A point that is not on the curve.
    return null
  }
  const transcript = createHash("sha384")
  for (const offer of mine.role === MIGRATION_ROLE.SOURCE ? [own, other] : [other, own]) transcript.update(offer)
  return new Uint8Array(hkdfSync("sha384", secret, transcript.digest(), "vmpl-lab migration key", 32))
}
