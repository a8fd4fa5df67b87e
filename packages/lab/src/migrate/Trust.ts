import { decodeCertificateTable } from "@vmpl-lab/sev-es"
import { RandomStream } from "@vmpl-lab/sim"
import type { PeerReport, TransportOptions } from "@vmpl-lab/svsm"
import { BadBytes } from "../attestation/BadBytes.ts"
import { readCertificates } from "../attestation/ReadCertificate.ts"
import { parseReport } from "../attestation/Report.ts"
import { testRootFingerprint, verifyEvidence } from "../attestation/Verify.ts"

/** Certificates of this project's root are valid then. */
const AT = new Date("2026-01-01T00:00:00Z")
const CHAIN = 3
const PRIVATE_KEY_SIZE = 48

/** A report that a chain of this project's root vouches for; null for all others. */
const genuine = (bytes: Uint8Array, certificates: Uint8Array): PeerReport | null => {
  try {
    const table = decodeCertificateTable(certificates)
    if (typeof table === "string" || table.length !== CHAIN) return null
    const [leaf, ask, ark] = table.map((one) => readCertificates(one.bytes, "certificate")[0]!)
    const report = parseReport(bytes, "report")
    const evidence = { report, leaf: leaf!, ask: ask!, ark: ark!, at: AT, rootKey: testRootFingerprint() }
    if (!verifyEvidence(evidence).every(({ ok }) => ok)) return null
    const { vmpl, reportData, measurement, policy, reportedTcb } = report
    return { vmpl, reportData, measurement, policy, reportedTcb }
  } catch (cause) {
    if (cause instanceof BadBytes) return null
    throw cause
  }
}

/** What one SVSM brings to a migration: its keys are of its own random stream. */
export const transportOptions = (seed: number, side: string): TransportOptions => {
  const random = new RandomStream(seed, `migration key of the ${side}`)
  const newPrivateKey = () => Uint8Array.from({ length: PRIVATE_KEY_SIZE }, () => random.int(0, 255))
  return { newPrivateKey, genuine }
}
