import { SIGNATURE_TYPE, signatureListBytes } from "@vmpl-lab/svsm"
import { readCertificates } from "../attestation/ReadCertificate.ts"

/** Owner of signatures that this tool enrolls: a GUID of its own. */
const OWNER = "5f0b7a4e-2c61-4d0b-9d4c-6b0f3a1c77e2"

/**
 * The signature database PK with the first certificate of a file, PEM or DER. Throws BadBytes, which names `name`, where
 * there is none.
 */
export const platformKey = (bytes: Uint8Array, name: string): Uint8Array =>
  signatureListBytes(SIGNATURE_TYPE.X509, OWNER, [readCertificates(bytes, name)[0]!.der])
