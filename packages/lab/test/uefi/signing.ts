import { createHash, createPublicKey, type KeyObject, sign } from "node:crypto"
import {
  Attribute,
  CertificateChoices,
  CertificateSet,
  ContentInfo,
  DigestAlgorithmIdentifiers,
  EncapsulatedContent,
  EncapsulatedContentInfo,
  IssuerAndSerialNumber,
  id_data,
  id_signedData,
  SignedData,
  SignerIdentifier,
  SignerInfo,
  SignerInfos
} from "@peculiar/asn1-cms"
import { AsnConvert, OctetString } from "@peculiar/asn1-schema"
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  BasicConstraints,
  Certificate,
  Extension,
  Extensions,
  id_ce_basicConstraints,
  Name,
  RelativeDistinguishedName,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Time,
  Validity,
  Version
} from "@peculiar/asn1-x509"
import { AUTHENTICATION_2, EFI_TIME, EFI_VARIABLE, type Variable, type VariableName } from "@vmpl-lab/guest"
import { guidBytes } from "@vmpl-lab/sev-es"
import { DATABASE_ATTRIBUTES, SIGNATURE_LIST, SIGNATURE_TYPE, signedBytes } from "@vmpl-lab/svsm"
import { type TestKeyName, testKey } from "../../src/attestation/TestKeys.ts"

const RSA_SHA256 = "1.2.840.113549.1.1.11"
const RSA = "1.2.840.113549.1.1.1"
const SHA = { sha256: "2.16.840.1.101.3.4.2.1", sha384: "2.16.840.1.101.3.4.2.2", sha1: "1.3.14.3.2.26" } as const

const bytesOf = (value: unknown): Uint8Array => new Uint8Array(AsnConvert.serialize(value))
const bufferOf = (bytes: Uint8Array): ArrayBuffer => Uint8Array.from(bytes).buffer
const algorithm = (oid: string): AlgorithmIdentifier => new AlgorithmIdentifier({ algorithm: oid, parameters: null })

/** Somebody with a key and a certificate. */
export interface Signer {
  readonly key: KeyObject
  readonly name: Name
  readonly der: Uint8Array
  /** The modulus of its key, as it is in the certificate. */
  readonly publicKeyBits: Uint8Array
}

const nameOf = (commonName: string): Name =>
  new Name([
    new RelativeDistinguishedName([
      new AttributeTypeAndValue({ type: "2.5.4.3", value: new AttributeValue({ utf8String: commonName }) })
    ])
  ])

let serial = 1

/** A signer of one of the test keys, certified by another or by itself. */
export const signer = (commonName: string, keyName: TestKeyName, issuer?: Signer, isAuthority = true): Signer => {
  const key = testKey(keyName)
  const name = nameOf(commonName)
  const basic = bytesOf(new BasicConstraints({ cA: true }))
  const tbsCertificate = new TBSCertificate({
    version: Version.v3,
    serialNumber: bufferOf(Uint8Array.of(serial++)),
    signature: algorithm(RSA_SHA256),
    issuer: issuer?.name ?? name,
    validity: new Validity({
      notBefore: new Time(new Date("2024-01-01T00:00:00Z")).getTime(),
      notAfter: new Time(new Date("2049-12-31T00:00:00Z")).getTime()
    }),
    subject: name,
    subjectPublicKeyInfo: AsnConvert.parse(
      createPublicKey(key).export({ format: "der", type: "spki" }),
      SubjectPublicKeyInfo
    ),
    ...(isAuthority
      ? {
          extensions: new Extensions([
            new Extension({
              extnID: id_ce_basicConstraints,
              critical: true,
              extnValue: new OctetString(bufferOf(basic))
            })
          ])
        }
      : {})
  })
  const signatureValue = bufferOf(sign("sha256", bytesOf(tbsCertificate), issuer?.key ?? key))
  const certificate = new Certificate({ tbsCertificate, signatureAlgorithm: algorithm(RSA_SHA256), signatureValue })
  const { n } = createPublicKey(key).export({ format: "jwk" })
  return { key, name, der: bytesOf(certificate), publicKeyBits: Uint8Array.from(Buffer.from(n!, "base64url")) }
}

/** How a message differs from the plainest one. */
export interface SignatureShape {
  readonly hash?: keyof typeof SHA
  readonly hasAttributes?: boolean
  readonly isWrapped?: boolean
  /** The content is in it. */
  readonly isAttached?: boolean
  /** Nobody has signed. */
  readonly hasNoSigner?: boolean
  /** Certificates beside the signer's. */
  readonly more?: ReadonlyArray<Signer>
}

/** SignedData over content that is not in it, DER. */
export const signedData = (content: Uint8Array, by: Signer, shape: SignatureShape = {}): Uint8Array => {
  const {
    hash = "sha256",
    hasAttributes = false,
    isWrapped = false,
    isAttached = false,
    hasNoSigner = false,
    more = []
  } = shape
  const { tbsCertificate } = AsnConvert.parse(by.der, Certificate)
  const attributes = [
    new Attribute({ attrType: "1.2.840.113549.1.9.3", attrValues: [bufferOf(objectIdentifier(id_data))] }),
    new Attribute({
      attrType: "1.2.840.113549.1.9.4",
      attrValues: [bufferOf(bytesOf(new OctetString(bufferOf(createHash(hash).update(content).digest()))))]
    })
  ]
  const info = new SignerInfo({
    sid: new SignerIdentifier({
      issuerAndSerialNumber: new IssuerAndSerialNumber({
        issuer: tbsCertificate.issuer,
        serialNumber: tbsCertificate.serialNumber
      })
    }),
    digestAlgorithm: algorithm(SHA[hash]),
    signatureAlgorithm: algorithm(RSA),
    ...(hasAttributes ? { signedAttrs: attributes } : {})
  })
  const signed = hasAttributes ? setOf(attributes.map(bytesOf)) : content
  info.signature = new OctetString(bufferOf(sign(hash, signed, by.key)))
  const data = new SignedData({
    digestAlgorithms: new DigestAlgorithmIdentifiers([algorithm(SHA[hash])]),
    encapContentInfo: new EncapsulatedContentInfo({
      eContentType: id_data,
      ...(isAttached ? { eContent: new EncapsulatedContent({ single: new OctetString(bufferOf(content)) }) } : {})
    }),
    certificates: new CertificateSet(
      [by, ...more].map(({ der }) => new CertificateChoices({ certificate: AsnConvert.parse(der, Certificate) }))
    ),
    signerInfos: new SignerInfos(hasNoSigner ? [] : [info])
  })
  if (!isWrapped) return bytesOf(data)
  return bytesOf(new ContentInfo({ contentType: id_signedData, content: bufferOf(bytesOf(data)) }))
}

/** DER of an object identifier below 1.2.840.113549. */
const objectIdentifier = (text: string): Uint8Array => {
  const arcs = text.split(".").slice(4).map(Number)
  return Uint8Array.of(6, 6 + arcs.length, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, ...arcs)
}

/** DER of a short SET OF, sorted. */
const setOf = (items: ReadonlyArray<Uint8Array>): Uint8Array => {
  const body = Buffer.concat([...items].sort(Buffer.compare))
  const length = body.length < 0x80 ? [body.length] : [0x81, body.length]
  return Uint8Array.from([0x31, ...length, ...body])
}

const OWNER = guidBytes("99999999-aaaa-bbbb-cccc-dddddddddddd")

/** An EFI_SIGNATURE_LIST. */
export const listOf = (type: string, signatures: ReadonlyArray<Uint8Array>): Uint8Array => {
  const size = 16 + (signatures[0]?.length ?? 0)
  const bytes = new Uint8Array(SIGNATURE_LIST.SIZE + size * signatures.length)
  const view = new DataView(bytes.buffer)
  bytes.set(guidBytes(type))
  view.setUint32(SIGNATURE_LIST.list_size, bytes.length, true)
  view.setUint32(SIGNATURE_LIST.signature_size, size, true)
  signatures.forEach((signature, i) => {
    bytes.set(OWNER, SIGNATURE_LIST.SIZE + i * size)
    bytes.set(signature, SIGNATURE_LIST.SIZE + i * size + 16)
  })
  return bytes
}

/** A database with the certificates of these. */
export const databaseOf = (...signers: ReadonlyArray<Signer>): Uint8Array =>
  Uint8Array.from(Buffer.concat(signers.map(({ der }) => listOf(SIGNATURE_TYPE.X509, [der]))))

/** EFI_TIME of a second in 2026. */
export const timeOf = (second: number): Uint8Array => {
  const bytes = new Uint8Array(EFI_TIME.SIZE)
  new DataView(bytes.buffer).setUint16(EFI_TIME.year, 2026, true)
  bytes[EFI_TIME.month] = 1
  bytes[EFI_TIME.day] = 1
  bytes[EFI_TIME.minute] = Math.floor(second / 60)
  bytes[EFI_TIME.second] = second % 60
  return bytes
}

/** What follows the time of an authenticated write, and the data. */
export const withDescriptor = (time: Uint8Array, signature: Uint8Array, data: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(AUTHENTICATION_2.data + signature.length + data.length)
  const view = new DataView(bytes.buffer)
  bytes.set(time, AUTHENTICATION_2.timestamp)
  view.setUint32(AUTHENTICATION_2.length, AUTHENTICATION_2.LENGTH_MIN + signature.length, true)
  view.setUint16(AUTHENTICATION_2.revision, AUTHENTICATION_2.REVISION, true)
  view.setUint16(AUTHENTICATION_2.certificate_type, AUTHENTICATION_2.WIN_CERT_TYPE_EFI_GUID, true)
  bytes.set(guidBytes(AUTHENTICATION_2.PKCS7_GUID), AUTHENTICATION_2.certificate_guid)
  bytes.set(signature, AUTHENTICATION_2.data)
  bytes.set(data, AUTHENTICATION_2.data + signature.length)
  return bytes
}

/** A signed write of a variable. @param second its time */
export const signedWrite = (
  name: VariableName,
  data: Uint8Array,
  second: number,
  by: Signer,
  shape: SignatureShape & { readonly append?: boolean; readonly time?: Uint8Array } = {}
): Variable => {
  const { append = false, time = timeOf(second) } = shape
  const attributes = DATABASE_ATTRIBUTES | (append ? EFI_VARIABLE.APPEND_WRITE : 0)
  const content = signedBytes({ ...name, attributes, data }, time)
  return { ...name, attributes, data: withDescriptor(time, signedData(content, by, shape), data) }
}
