import { createHash, type KeyObject, verify, X509Certificate } from "node:crypto"
import { ContentInfo, id_signedData, SignedData, type SignerInfo } from "@peculiar/asn1-cms"
import { AsnConvert } from "@peculiar/asn1-schema"
import type { Certificate } from "@peculiar/asn1-x509"
import type { SignatureVerifier } from "@vmpl-lab/svsm"

const ID = {
  contentType: "1.2.840.113549.1.9.3",
  messageDigest: "1.2.840.113549.1.9.4",
  commonName: "2.5.4.3"
} as const

/** Digests that a signer may use, by object identifier. Source: EDK2, AuthService.c, mHashInfo */
const HASHES: { readonly [oid: string]: string } = {
  "2.16.840.1.101.3.4.2.1": "sha256",
  "2.16.840.1.101.3.4.2.2": "sha384",
  "2.16.840.1.101.3.4.2.3": "sha512"
}

/** Keys whose signatures are understood: RSA as of PKCS#1 1.5, ECDSA in DER. */
const KEY_TYPES: ReadonlyArray<string | undefined> = ["rsa", "ec"]

const SIGNATURE_ALGORITHMS: ReadonlyArray<string> = [
  "1.2.840.113549.1.1.1",
  "1.2.840.113549.1.1.11",
  "1.2.840.113549.1.1.12",
  "1.2.840.113549.1.1.13",
  "1.2.840.10045.4.3.2",
  "1.2.840.10045.4.3.3",
  "1.2.840.10045.4.3.4"
]

/** Certificates between a signer and who is trusted. */
const CHAIN_MAX = 8

/** Tags of DER. */
const OCTET_STRING = 0x04
const OBJECT_IDENTIFIER = 0x06
const SET_OF = 0x31

/** A certificate of a message. */
interface Included {
  readonly parsed: Certificate
  readonly x509: X509Certificate
}

interface Message {
  readonly signed: SignedData
  readonly included: ReadonlyArray<Included>
}

const isEqual = (a: ArrayBuffer | Uint8Array, b: ArrayBuffer | Uint8Array): boolean =>
  Buffer.compare(new Uint8Array(a), new Uint8Array(b)) === 0

/** Reads a message with or without its ContentInfo; throws what the parsers throw. */
const parse = (bytes: Uint8Array): Message => {
  const signed = AsnConvert.parse(signedDataIn(bytes), SignedData)
  const included = [...(signed.certificates ?? [])].flatMap(({ certificate }) => {
    if (certificate === undefined) return []
    return [{ parsed: certificate, x509: new X509Certificate(Buffer.from(AsnConvert.serialize(certificate))) }]
  })
  return { signed, included }
}

const signedDataIn = (bytes: Uint8Array): ArrayBuffer => {
  const der = Uint8Array.from(bytes).buffer
  // SignedData begins with its version, ContentInfo with an object identifier.
  const header = bytes[1]! < 0x80 ? 2 : 2 + (bytes[1]! & 0x7f)
  if (bytes[header] !== OBJECT_IDENTIFIER) return der
  const { contentType, content } = AsnConvert.parse(der, ContentInfo)
  if (contentType !== id_signedData) throw new Error("no SignedData")
  return content
}

/** The certificate that a signer names. */
const certificateOf = ({ included }: Message, { sid }: SignerInfo): Included | undefined => {
  const named = sid.issuerAndSerialNumber
  if (named === undefined) return undefined
  const issuer = AsnConvert.serialize(named.issuer)
  return included.find(
    ({ parsed: { tbsCertificate } }) =>
      isEqual(tbsCertificate.serialNumber, named.serialNumber) &&
      isEqual(AsnConvert.serialize(tbsCertificate.issuer), issuer)
  )
}

/** DER of a SET OF: its elements in the order of their bytes. */
const setOf = (elements: ReadonlyArray<Uint8Array>): Uint8Array => {
  const body = Buffer.concat([...elements].sort(Buffer.compare))
  const { length } = body
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.of(SET_OF, ...head), body])
}

/**
 * What a signer has signed: the content, or its attributes, which then name the content's digest. They are sent with
 * another tag than they are signed with, and in an order that need not be DER's.
 */
const signedBytes = ({ signedAttrs }: SignerInfo, hash: string, content: Uint8Array): Uint8Array | null => {
  if (signedAttrs === undefined) return content
  const attribute = (oid: string): ArrayBuffer | undefined =>
    signedAttrs.find(({ attrType }) => attrType === oid)?.attrValues[0]
  const digest = attribute(ID.messageDigest)
  if (digest === undefined || attribute(ID.contentType) === undefined) return null
  const expected = createHash(hash).update(content).digest()
  if (!isEqual(digest, Buffer.concat([Buffer.of(OCTET_STRING, expected.length), expected]))) return null
  return setOf(signedAttrs.map((one) => new Uint8Array(AsnConvert.serialize(one))))
}

const isSignatureGood = (signer: SignerInfo, content: Uint8Array, key: KeyObject): boolean => {
  const hash = HASHES[signer.digestAlgorithm.algorithm]
  if (hash === undefined || !SIGNATURE_ALGORITHMS.includes(signer.signatureAlgorithm.algorithm)) return false
  if (!KEY_TYPES.includes(key.asymmetricKeyType)) return false
  const bytes = signedBytes(signer, hash, content)
  return bytes !== null && verify(hash, bytes, { key, dsaEncoding: "der" }, new Uint8Array(signer.signature.buffer))
}

const issued = (issuer: X509Certificate, subject: X509Certificate): boolean =>
  issuer.ca && subject.checkIssued(issuer) && subject.verify(issuer.publicKey)

/** True where the certificate is trusted, or leads by its issuers to one that is. Nobody looks at times. */
const isTrusted = (
  certificate: X509Certificate,
  trusted: ReadonlyArray<X509Certificate>,
  included: ReadonlyArray<Included>,
  depth = 0
): boolean =>
  trusted.some((one) => isEqual(one.raw, certificate.raw) || issued(one, certificate)) ||
  (depth < CHAIN_MAX &&
    included.some(
      ({ x509 }) =>
        !isEqual(x509.raw, certificate.raw) &&
        issued(x509, certificate) &&
        isTrusted(x509, trusted, included, depth + 1)
    ))

/** From the signer's certificate by its issuers to the last one that the message has. */
const rootOf = ({ included }: Message, from: Included): Included => {
  let root = from
  for (let depth = 0; depth < CHAIN_MAX; depth++) {
    const next = included.find(({ x509 }) => !isEqual(x509.raw, root.x509.raw) && issued(x509, root.x509))
    if (next === undefined) break
    root = next
  }
  return root
}

const commonName = ({ tbsCertificate }: Certificate): string | undefined =>
  [...tbsCertificate.subject]
    .flatMap((names) => [...names])
    .find(({ type }) => type === ID.commonName)
    ?.value.toString()

/** Bytes that no parser takes for a message are no signature; whatever they throw says only that. */
const orElse = <A>(otherwise: A, read: () => A): A => {
  try {
    return read()
  } catch {
    return otherwise
  }
}

/**
 * Signatures of authenticated variables: PKCS#7 SignedData without content, one digest of SHA-2 for each signer, RSA or
 * ECDSA. Every signer must be good. Source: UEFI 2.10, 8.2.2; RFC 5652
 */
export const pkcs7Verifier: SignatureVerifier = {
  isSignedBy: (signedData, content, trusted) =>
    orElse(false, () => {
      const message = parse(signedData)
      const { signed, included } = message
      const roots = trusted.flatMap((der) =>
        orElse<ReadonlyArray<X509Certificate>>([], () => [new X509Certificate(der)])
      )
      const signers = [...signed.signerInfos]
      if (signed.encapContentInfo.eContent !== undefined || signers.length === 0) return false
      return signers.every((signer) => {
        const from = certificateOf(message, signer)
        if (from === undefined || !isSignatureGood(signer, content, from.x509.publicKey)) return false
        return isTrusted(from.x509, roots, included)
      })
    }),
  signer: (signedData) =>
    orElse(null, () => {
      const message = parse(signedData)
      const [signer] = [...message.signed.signerInfos]
      const from = signer === undefined ? undefined : certificateOf(message, signer)
      if (from === undefined) return null
      const name = commonName(from.parsed)
      if (name === undefined) return null
      const root = rootOf(message, from)
      const issuer = AsnConvert.serialize(root.parsed.tbsCertificate)
      const digest = createHash("sha256").update(name, "utf8").update(new Uint8Array(issuer)).digest()
      return { root: new Uint8Array(root.x509.raw), digest: new Uint8Array(digest) }
    })
}
