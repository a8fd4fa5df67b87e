import { X509Certificate } from "node:crypto"
import { AsnConvert } from "@peculiar/asn1-schema"
import { Certificate } from "@peculiar/asn1-x509"
import { BadBytes, hex } from "./BadBytes.ts"
import { AMD_OID } from "./Certificates.ts"
import { type Generation, generationNamed } from "./Tcb.ts"

/** A certificate as it is verified, and AMD's extensions in it. */
export interface ReadCertificate {
  readonly der: Uint8Array
  readonly x509: X509Certificate
  /** By the names of AMD_OID; those that are not there are absent. */
  readonly extensions: ReadonlyMap<string, Uint8Array>
}

const PEM_BEGIN = "-----BEGIN CERTIFICATE-----"

/** The certificates of a file in its order: several in PEM, or one in DER. */
export const readCertificates = (bytes: Uint8Array, name: string): ReadonlyArray<ReadCertificate> => {
  const text = Buffer.from(bytes).toString("latin1")
  const pems = text.includes(PEM_BEGIN)
    ? [...text.matchAll(/-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----/g)].map(([, body]) =>
        Uint8Array.from(Buffer.from(body!, "base64"))
      )
    : [bytes]
  if (pems.length === 0) throw new BadBytes(`${name}: no end of the certificate that begins, expected PEM or DER`)
  return pems.map((der) => readDer(der, name))
}

const readDer = (given: Uint8Array, name: string): ReadCertificate => {
  const der = given.subarray(0, derSize(given, name))
  const rest = given.subarray(der.length)
  if (rest.some((byte) => byte !== 0)) {
    const range = `bytes ${hex(der.length)} to ${hex(given.length - 1)}`
    throw new BadBytes(`${name}: ${range} follow the certificate, expected its end or zeros`)
  }
  try {
    const { tbsCertificate } = AsnConvert.parse(der, Certificate)
    const named = Object.entries(AMD_OID).flatMap(([key, oid]): ReadonlyArray<readonly [string, Uint8Array]> => {
      const found = tbsCertificate.extensions?.find(({ extnID }) => extnID === oid)
      return found === undefined ? [] : [[key, new Uint8Array(found.extnValue.buffer)]]
    })
    return { der, x509: new X509Certificate(der), extensions: new Map(named) }
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new BadBytes(`${name}: bytes 0x0 to ${hex(der.length - 1)} are no X.509 certificate: ${why}`)
  }
}

/** Bytes of the outermost DER element: a SEQUENCE with a length of two bytes, as every certificate with such keys is. */
const derSize = (bytes: Uint8Array, name: string): number => {
  if (bytes.length < 4 || bytes[0] !== 0x30 || bytes[1] !== 0x82) {
    throw new BadBytes(`${name}: bytes 0x0 to 0x1 do not begin a certificate, expected PEM, or DER with 0x30 0x82`)
  }
  const size = 4 + (bytes[2]! << 8) + bytes[3]!
  if (size > bytes.length) {
    throw new BadBytes(`${name}: ends at byte ${hex(bytes.length)}, expected a certificate of ${hex(size)} bytes`)
  }
  return size
}

/** The number in an extension; null where it is absent or not a DER INTEGER of one byte's range. */
export const extensionNumber = ({ extensions }: ReadCertificate, name: string): number | null => {
  const value = extensions.get(name)
  if (value === undefined || value[0] !== 2 || value[1] !== value.length - 2) return null
  if (value.length === 3 && value[2]! < 0x80) return value[2]!
  return value.length === 4 && value[2] === 0 ? value[3]! : null
}

/** The generation that the product name in a chip's certificate tells; null where there is none. */
export const productOf = ({ extensions }: ReadCertificate): Generation | null => {
  const value = extensions.get("product")
  return value === undefined ? null : generationNamed(Buffer.from(value.subarray(2)).toString("latin1"))
}

/** Whether a certificate is for a VLEK: it names the cloud's operator, and no chip. */
export const isVlek = ({ extensions }: ReadCertificate): boolean => extensions.has("cspId") && !extensions.has("hwid")

/**
 * ASK and ARK of a leaf out of the files that were given for them, which may hold a whole chain in any order, as AMD's
 * and other tools' do. Where none has issued it, the first and the last are taken, for the checks to tell.
 */
export const chainOf = (
  leaf: ReadCertificate,
  askFile: ReadonlyArray<ReadCertificate>,
  arkFile: ReadonlyArray<ReadCertificate>
): { readonly ask: ReadCertificate; readonly ark: ReadCertificate } => {
  const issuer = (of: ReadCertificate, among: ReadonlyArray<ReadCertificate>): ReadCertificate | undefined =>
    among.find(({ x509 }) => of.x509.checkIssued(x509))
  const ask = issuer(leaf, askFile) ?? issuer(leaf, arkFile) ?? askFile[0]!
  const ark = issuer(ask, arkFile) ?? issuer(ask, askFile) ?? arkFile.at(-1)!
  return { ask, ark }
}

export const commonName = ({ x509 }: ReadCertificate): string => /CN=([^\n]*)/.exec(x509.subject)?.[1] ?? "?"
