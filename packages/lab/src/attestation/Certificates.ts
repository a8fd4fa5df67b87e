import { createPublicKey, type KeyObject } from "node:crypto"
import { RsaSaPssParams } from "@peculiar/asn1-rsa"
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
  id_ce_keyUsage,
  KeyUsage,
  KeyUsageFlags,
  Name,
  RelativeDistinguishedName,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Time,
  Validity,
  Version
} from "@peculiar/asn1-x509"
import { type EndorsementKey, familyOf, isSinceTurin, type PlatformIdentity } from "@vmpl-lab/psp"
import { SALT_SIZE, signPss } from "./Pss.ts"
import { type Generation, generationOf } from "./Tcb.ts"
import { testKey } from "./TestKeys.ts"

/** Root of AMD's extensions in certificates of chips. @spec VCEK "certificate extensions" */
const AMD = "1.3.6.1.4.1.3704.1"

/** What AMD's certificates say beside the key, by object identifier. @spec VCEK "certificate extensions" */
export const AMD_OID = {
  structVersion: `${AMD}.1`,
  product: `${AMD}.2`,
  bootLoader: `${AMD}.3.1`,
  tee: `${AMD}.3.2`,
  snp: `${AMD}.3.3`,
  spare4: `${AMD}.3.4`,
  spare5: `${AMD}.3.5`,
  spare6: `${AMD}.3.6`,
  spare7: `${AMD}.3.7`,
  microcode: `${AMD}.3.8`,
  fmc: `${AMD}.3.9`,
  hwid: `${AMD}.4`,
  cspId: `${AMD}.5`
} as const

const ID = {
  rsaPss: "1.2.840.113549.1.1.10",
  mgf1: "1.2.840.113549.1.1.8",
  sha384: "2.16.840.1.101.3.4.2.2",
  commonName: "2.5.4.3",
  organization: "2.5.4.10",
  organizationalUnit: "2.5.4.11"
} as const

/** Who pays for the VLEKs of this project's cloud. */
export const CSP_ID = "vmpl-lab"
const NOT_BEFORE = new Date("2024-01-01T00:00:00Z")
const NOT_AFTER = new Date("2049-12-31T23:59:59Z")

/** A chain, leaf first as it is checked, each DER. */
export interface CertificateChain {
  readonly leaf: Uint8Array
  readonly ask: Uint8Array
  readonly ark: Uint8Array
}

const bytesOf = (value: unknown): Uint8Array => new Uint8Array(AsnConvert.serialize(value))
const bufferOf = (bytes: Uint8Array): ArrayBuffer => Uint8Array.from(bytes).buffer

/** DER of a small number: no byte of a TCB is longer. */
const integer = (value: number): Uint8Array =>
  value < 0x80 ? Uint8Array.of(2, 1, value) : Uint8Array.of(2, 2, 0, value)
const IA5_STRING = 0x16
const ia5 = (text: string): Uint8Array => Uint8Array.of(IA5_STRING, text.length, ...Buffer.from(text, "latin1"))

const sha384 = (): AlgorithmIdentifier => new AlgorithmIdentifier({ algorithm: ID.sha384, parameters: null })

const pss = (): AlgorithmIdentifier =>
  new AlgorithmIdentifier({
    algorithm: ID.rsaPss,
    parameters: AsnConvert.serialize(
      new RsaSaPssParams({
        hashAlgorithm: sha384(),
        maskGenAlgorithm: new AlgorithmIdentifier({ algorithm: ID.mgf1, parameters: AsnConvert.serialize(sha384()) }),
        saltLength: SALT_SIZE,
        trailerField: 1
      })
    )
  })

const nameOf = (commonName: string): Name =>
  new Name(
    [
      [ID.organizationalUnit, "Simulation"],
      [ID.organization, "vmpl-lab, not AMD"],
      [ID.commonName, commonName]
    ].map(
      ([type, value]) =>
        new RelativeDistinguishedName([
          new AttributeTypeAndValue({ type: type!, value: new AttributeValue({ utf8String: value! }) })
        ])
    )
  )

const extension = (extnID: string, value: Uint8Array, critical = false): Extension =>
  new Extension({ extnID, critical, extnValue: new OctetString(bufferOf(value)) })

interface CertificateInput {
  readonly subject: string
  readonly issuer: string
  readonly serial: number
  readonly publicKey: KeyObject
  readonly signer: KeyObject
  readonly extensions: ReadonlyArray<Extension>
}

/** DER of a certificate. @spec RFC5280 4.1 */
const certificate = ({ subject, issuer, serial, publicKey, signer, extensions }: CertificateInput): Uint8Array => {
  const spki = publicKey.export({ format: "der", type: "spki" })
  const tbsCertificate = new TBSCertificate({
    version: Version.v3,
    serialNumber: bufferOf(Uint8Array.of(serial)),
    signature: pss(),
    issuer: nameOf(issuer),
    validity: new Validity({ notBefore: new Time(NOT_BEFORE).getTime(), notAfter: new Time(NOT_AFTER).getTime() }),
    subject: nameOf(subject),
    subjectPublicKeyInfo: AsnConvert.parse(spki, SubjectPublicKeyInfo),
    extensions: new Extensions([...extensions])
  })
  const signatureValue = bufferOf(signPss(signer, bytesOf(tbsCertificate)))
  return bytesOf(new Certificate({ tbsCertificate, signatureAlgorithm: pss(), signatureValue }))
}

/** `below`: how many authorities may stand between this one and a key of a chip. */
const authority = (below: number): ReadonlyArray<Extension> => [
  extension(
    id_ce_basicConstraints,
    bytesOf(new BasicConstraints({ cA: true, ...(below === 0 ? { pathLenConstraint: 0 } : {}) })),
    true
  ),
  extension(id_ce_keyUsage, bytesOf(new KeyUsage(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign)), true)
]

/** Object identifiers of the TCB's components, by the byte of a TCB_VERSION in which a generation has them. */
const tcbOids = (generation: Generation): ReadonlyArray<readonly [oid: string, byte: number]> =>
  generation === "Milan" || generation === "Genoa"
    ? [
        [AMD_OID.bootLoader, 0],
        [AMD_OID.tee, 1],
        [AMD_OID.spare4, 2],
        [AMD_OID.spare5, 3],
        [AMD_OID.spare6, 4],
        [AMD_OID.spare7, 5],
        [AMD_OID.snp, 6],
        [AMD_OID.microcode, 7]
      ]
    : [
        [AMD_OID.fmc, 0],
        [AMD_OID.bootLoader, 1],
        [AMD_OID.tee, 2],
        [AMD_OID.snp, 3],
        [AMD_OID.spare5, 4],
        [AMD_OID.spare6, 5],
        [AMD_OID.spare7, 6],
        [AMD_OID.microcode, 7]
      ]

/** A VCEK's certificate names the stepping on Milan, as AMD's do. */
const productName = (generation: Generation, kind: EndorsementKey): string =>
  generation === "Milan" && kind === "VCEK" ? "Milan-B0" : generation

/** Bytes of a chip id that a certificate has from Turin on. */
const HWID_SIZE_TURIN = 8
const hwidOf = ({ chipId, fms }: PlatformIdentity): Uint8Array =>
  isSinceTurin(fms) ? chipId.subarray(0, HWID_SIZE_TURIN) : chipId

/** The generation of a platform's processor; Genoa for one that is not known. */
export const generationOfPlatform = ({ fms }: PlatformIdentity): Generation => {
  const { family, model } = familyOf(fms)
  return generationOf(family, model) ?? "Genoa"
}

/**
 * The chain of a platform's VCEK or VLEK for its reported TCB, from the project's own test root, as AMD's key service
 * would give it. Equal platforms have equal chains, byte by byte. `tcb` is the TCB_VERSION, 8 bytes.
 */
export const certificateChain = (
  identity: PlatformIdentity,
  kind: EndorsementKey,
  tcb: Uint8Array,
  generation: Generation = generationOfPlatform(identity)
): CertificateChain => {
  const [root, ark] = [`ARK-${generation}`, testKey("ARK")]
  const isVcek = kind === "VCEK"
  const middle = isVcek ? `SEV-${generation}` : `SEV-VLEK-${generation}`
  const middleKey = testKey(isVcek ? "ASK" : "ASVK")
  const own = isVcek ? extension(AMD_OID.hwid, hwidOf(identity)) : extension(AMD_OID.cspId, ia5(CSP_ID))
  const byArk = { issuer: root, signer: ark }
  return {
    ark: certificate({ ...byArk, subject: root, serial: 1, publicKey: createPublicKey(ark), extensions: authority(1) }),
    ask: certificate({
      ...byArk,
      subject: middle,
      serial: isVcek ? 2 : 3,
      publicKey: createPublicKey(middleKey),
      extensions: authority(0)
    }),
    leaf: certificate({
      subject: `SEV-${kind}`,
      issuer: middle,
      serial: 0,
      publicKey: identity.publicKey(kind),
      signer: middleKey,
      extensions: [
        extension(AMD_OID.structVersion, integer(isVcek ? 1 : 0)),
        extension(AMD_OID.product, ia5(productName(generation, kind))),
        ...tcbOids(generation).map(([oid, byte]) => extension(oid, integer(tcb[byte]!))),
        own
      ]
    })
  }
}

/** DER as PEM. */
export const pemOf = (der: Uint8Array): string => {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`
}
