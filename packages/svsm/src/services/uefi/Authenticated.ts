import { AUTHENTICATION_2, EFI_STATUS, EFI_TIME, EFI_VARIABLE, type Variable } from "@vmpl-lab/guest"
import { guidText } from "@vmpl-lab/sev-es"
import { isDatabase, isPlatformKey, isSetupMode, signedBytes, trustedFor } from "./SecureBoot.ts"
import { certificatesIn, signatureDatabaseStatus } from "./SignatureList.ts"
import type { StoredVariables } from "./StoredVariables.ts"

/**
 * Verifies signatures of authenticated writes. Both take a DER SignedData, with or without its ContentInfo, say false or
 * null to what they do not understand, and never throw.
 */
export interface SignatureVerifier {
  /** True where a signer of the content is one of the trusted certificates (DER), or has been issued by one. */
  readonly isSignedBy: (signedData: Uint8Array, content: Uint8Array, trusted: ReadonlyArray<Uint8Array>) => boolean
  /**
   * Who has signed: the last certificate of the chain, and a digest of it with the signer's common name, by which later
   * writes are known to be the same one's. The signature itself is not looked at.
   */
  readonly signer: (signedData: Uint8Array) => { readonly root: Uint8Array; readonly digest: Uint8Array } | null
}

/** A write as its descriptor says. */
export interface AuthenticatedWrite {
  readonly timestamp: Uint8Array
  readonly signedData: Uint8Array
  readonly isPkcs7: boolean
  readonly data: Uint8Array
}

/** Takes EFI_VARIABLE_AUTHENTICATION_2 off; null where it is malformed. */
export const authenticatedWrite = (bytes: Uint8Array): AuthenticatedWrite | null => {
  const { data, length, timestamp, LENGTH_MIN, REVISION, WIN_CERT_TYPE_EFI_GUID, PKCS7_GUID } = AUTHENTICATION_2
  if (bytes.length < data) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const size = view.getUint32(length, true)
  if (size < LENGTH_MIN || size > bytes.length - EFI_TIME.SIZE) return null
  const end = EFI_TIME.SIZE + size
  return {
    timestamp: bytes.slice(timestamp, EFI_TIME.SIZE),
    signedData: bytes.slice(data, end),
    isPkcs7:
      view.getUint16(AUTHENTICATION_2.revision, true) === REVISION &&
      view.getUint16(AUTHENTICATION_2.certificate_type, true) === WIN_CERT_TYPE_EFI_GUID &&
      guidText(bytes.subarray(0, data), AUTHENTICATION_2.certificate_guid) === PKCS7_GUID,
    data: bytes.slice(end)
  }
}

/** Fields of a time that a write must leave zero. */
const ZERO_FROM = [EFI_TIME.pad1, EFI_TIME.nanosecond, EFI_TIME.time_zone, EFI_TIME.daylight, EFI_TIME.pad2] as const
const ZERO_SIZE = [1, 4, 2, 1, 1] as const

const isPlainTime = (time: Uint8Array): boolean =>
  ZERO_FROM.every((from, i) => time.subarray(from, from + ZERO_SIZE[i]!).every((byte) => byte === 0))

/** True where `a` is later than `b`. */
export const isLater = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(sortable(a), sortable(b)) > 0

/** The year is little-endian; then come month, day, hour, minute, second. */
const sortable = (time: Uint8Array): Uint8Array => Uint8Array.of(time[1]!, time[0]!, ...time.subarray(2, EFI_TIME.pad1))

/** What a write comes to: the status, and where it is SUCCESS, who may write the variable from now on. */
export interface Verdict {
  readonly status: number
  readonly signer: Uint8Array | null
}

const refused = (status: number): Verdict => ({ status, signer: null })
const VIOLATION = refused(EFI_STATUS.SECURITY_VIOLATION)

/**
 * Decides on a time-based authenticated write. Nothing is accepted that is not verified, but for KEK and the image
 * databases in setup mode, when nobody has a key yet.
 * @param variable the write with the data alone, and all of its attributes
 * @param verifiesInUserMode false refuses everything outside of setup mode
 */
export const verdictOn = (
  variables: StoredVariables,
  verifier: SignatureVerifier | null,
  variable: Variable,
  write: AuthenticatedWrite,
  verifiesInUserMode: boolean
): Verdict => {
  const { timestamp, signedData, isPkcs7, data } = write
  const old = variables.find(variable)
  if (!isPlainTime(timestamp) || !isPkcs7) return VIOLATION
  const isAppended = (variable.attributes & EFI_VARIABLE.APPEND_WRITE) !== 0
  const since = old?.timestamp ?? null
  if (since !== null && !isAppended && !isLater(timestamp, since)) return VIOLATION
  const isSetup = isSetupMode(variables)
  const content = signedBytes(variable, timestamp)
  const isVerified = (trusted: ReadonlyArray<Uint8Array>): boolean => {
    if (verifier === null || (!isSetup && !verifiesInUserMode)) return false
    variables.steps.verified++
    return verifier.isSignedBy(signedData, content, trusted)
  }
  if (!isDatabase(variable)) {
    const signer = verifier?.signer(signedData) ?? null
    if (signer === null || !isVerified([signer.root])) return VIOLATION
    if (old !== undefined && (old.signer === null || !isEqual(old.signer, signer.digest))) return VIOLATION
    return { status: EFI_STATUS.SUCCESS, signer: signer.digest }
  }
  // The first PK signs itself; the others wait for it.
  const trusted = isSetup ? certificatesIn(data) : trustedFor(variables, variable)
  if ((!isSetup || isPlatformKey(variable)) && !isVerified(trusted)) return VIOLATION
  return refused(signatureDatabaseStatus(data, isPlatformKey(variable) ? 1 : Infinity))
}

const isEqual = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0
