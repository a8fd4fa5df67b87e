import { createHash, createPublicKey, verify } from "node:crypto"
import { hexOf } from "./BadBytes.ts"
import { commonName, extensionNumber, isVlek, productOf, type ReadCertificate } from "./ReadCertificate.ts"
import type { Report } from "./Report.ts"
import { type Generation, TCB_BYTES } from "./Tcb.ts"
import { testKey } from "./TestKeys.ts"

/** One thing that was looked at. */
export interface Check {
  readonly check: string
  readonly ok: boolean
  /** What was found, and where it is not what was expected, that too. */
  readonly detail: string
}

/** What a verifier is given; what is left out is not looked at. */
export interface Evidence {
  readonly report: Report
  readonly leaf: ReadCertificate
  readonly ask: ReadCertificate
  readonly ark: ReadCertificate
  /** The instant at which certificates must be valid. */
  readonly at: Date
  /** SHA-256 of the DER of the root's public key; any root is taken where it is left out, because the user gave it. */
  readonly rootKey?: string | undefined
  readonly measurement?: Uint8Array | undefined
  readonly vmpl?: number | undefined
  /** What the report must be fresh by; 64 bytes. */
  readonly nonce?: Uint8Array | undefined
  /** The services manifest, or one service's; the nonce and it are bound together then. */
  readonly manifest?: Uint8Array | undefined
}

/** SHA-256 of the DER of a public key: how a root is recognised. */
export const keyFingerprint = (key: ReturnType<typeof createPublicKey>): string =>
  createHash("sha256")
    .update(key.export({ format: "der", type: "spki" }))
    .digest("hex")

/** The root of this project's chains. */
export const testRootFingerprint = (): string => keyFingerprint(createPublicKey(testKey("ARK")))

/** AMD's own roots, by the fingerprints of their keys. Equal in the chains of two verifiers. @spec VCEK "ARK" */
export const AMD_ROOTS: { readonly [fingerprint: string]: Generation } = {
  "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": "Milan",
  "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": "Genoa",
  "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": "Turin"
}

/** Whose root it is. */
const ownerOf = (fingerprint: string): string => {
  if (fingerprint === testRootFingerprint()) return "the test root of vmpl-lab"
  const generation = AMD_ROOTS[fingerprint]
  return generation === undefined ? "not one of AMD's" : `AMD's root of ${generation}`
}

/** REPORT_DATA of a report that an SVSM asks for on behalf of its services. @spec SVSM 7 */
export const boundData = (nonce: Uint8Array, manifest: Uint8Array | undefined): Uint8Array =>
  manifest === undefined ? nonce : new Uint8Array(createHash("sha512").update(nonce).update(manifest).digest())

const equal = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

const compared = (check: string, found: Uint8Array, expected: Uint8Array): Check => {
  const ok = equal(found, expected)
  return { check, ok, detail: ok ? hexOf(found) : `${hexOf(found)}, expected ${hexOf(expected)}` }
}

const issued = (subject: ReadCertificate, issuer: ReadCertificate): Check => {
  const isSigned = subject.x509.checkIssued(issuer.x509) && subject.x509.verify(issuer.x509.publicKey)
  const ok = isSigned && issuer.x509.ca
  const names = `${commonName(subject)} by ${commonName(issuer)}`
  const why = isSigned ? "signed by a certificate that is no authority" : "not signed"
  return { check: `signature of ${commonName(subject)}`, ok, detail: ok ? names : `${why}: ${names}` }
}

const inTime = ({ leaf, ask, ark, at }: Evidence): Check => {
  const late = [leaf, ask, ark].filter(({ x509 }) => at < x509.validFromDate || at > x509.validToDate)
  const bad = late.map((one) => `${commonName(one)} is valid from ${one.x509.validFrom} to ${one.x509.validTo}`)
  return { check: "dates of certificates", ok: late.length === 0, detail: bad.join("; ") || at.toISOString() }
}

const root = ({ ark, rootKey }: Evidence): Check => {
  const found = keyFingerprint(ark.x509.publicKey)
  const ok = rootKey === undefined || found === rootKey
  return { check: "key of the root", ok, detail: `${found}, ${ownerOf(found)}${ok ? "" : `, expected ${rootKey}`}` }
}

const reportSignature = ({ report, leaf }: Evidence): Check => {
  const key = { key: leaf.x509.publicKey, dsaEncoding: "ieee-p1363" as const }
  const isCurve = leaf.x509.publicKey.asymmetricKeyDetails?.namedCurve === "secp384r1"
  const ok = report.signer !== "none" && isCurve && verify("sha384", report.signed, key, report.signature)
  const why = report.signer === "none" ? "the report is not signed" : isCurve ? "wrong" : "not a key of P-384"
  return { check: "signature of the report", ok, detail: ok ? "ECDSA P-384 with SHA-384" : why }
}

const signer = ({ report, leaf }: Evidence): Check => {
  const kind = isVlek(leaf) ? "VLEK" : "VCEK"
  const ok = report.signer === kind
  return { check: "kind of the key", ok, detail: ok ? kind : `${kind}, expected ${report.signer} as the report says` }
}

const chip = ({ report, leaf }: Evidence): Check => {
  const check = "chip"
  const hwid = leaf.extensions.get("hwid")
  if (hwid === undefined) {
    return { check, ok: isVlek(leaf), detail: isVlek(leaf) ? "a VLEK names none" : "the VCEK's certificate names none" }
  }
  if (report.chipId.every((byte) => byte === 0)) return { check, ok: true, detail: "masked in the report" }
  // Turin's certificates have the 8 significant bytes only.
  const named = report.chipId.subarray(0, hwid.length)
  const rest = report.chipId.subarray(hwid.length)
  return compared(check, Buffer.concat([named, rest]), Buffer.concat([hwid, new Uint8Array(rest.length)]))
}

/** The generation, from the report or else from the certificate; null where neither tells. */
export const generationIn = ({ report, leaf }: Pick<Evidence, "report" | "leaf">): Generation | null =>
  report.generation ?? productOf(leaf)

const tcb = (evidence: Evidence): ReadonlyArray<Check> => {
  const { report, leaf } = evidence
  const generation = generationIn(evidence)
  const certified = productOf(leaf)
  if (generation === null) {
    return [{ check: "TCB", ok: false, detail: "neither report nor certificate tells the processor's generation" }]
  }
  if (certified !== null && certified !== generation) {
    return [{ check: "TCB", ok: false, detail: `the certificate is for ${certified}, expected ${generation}` }]
  }
  return Object.entries(TCB_BYTES[generation]).map(([component, byte]) => {
    const found = extensionNumber(leaf, component)
    const expected = report.reportedTcb[byte]!
    const ok = found === expected
    const detail = ok ? String(found) : `${found ?? "absent"} in the certificate, expected ${expected} as reported`
    return { check: `TCB: ${component}`, ok, detail }
  })
}

const vmplOf = ({ report: { vmpl } }: Evidence, expected: number): Check => {
  const ok = vmpl === expected
  return { check: "VMPL", ok, detail: ok ? String(vmpl) : `${vmpl}, expected ${expected}` }
}

/** Every check in its order; all must be ok. */
export const verifyEvidence = (evidence: Evidence): ReadonlyArray<Check> => {
  const { report, leaf, ask, ark, measurement, vmpl, nonce, manifest } = evidence
  return [
    root(evidence),
    issued(ark, ark),
    issued(ask, ark),
    issued(leaf, ask),
    inTime(evidence),
    reportSignature(evidence),
    signer(evidence),
    chip(evidence),
    ...tcb(evidence),
    ...(measurement === undefined ? [] : [compared("measurement", report.measurement, measurement)]),
    ...(vmpl === undefined ? [] : [vmplOf(evidence, vmpl)]),
    ...(nonce === undefined
      ? []
      : [
          compared(
            manifest === undefined ? "nonce" : "nonce and manifest",
            report.reportData,
            boundData(nonce, manifest)
          )
        ])
  ]
}
