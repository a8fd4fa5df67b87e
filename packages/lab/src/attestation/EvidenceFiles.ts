import { CERTIFICATE_GUID, decodeCertificateTable } from "@vmpl-lab/sev-es"
import { RunFailed } from "../RunFailed.ts"
import type { AttestInput, AttestOutcome } from "./AttestRun.ts"
import { hexOf } from "./BadBytes.ts"
import { pemOf } from "./Certificates.ts"
import type { EvidenceFile } from "./EvidenceFile.ts"

/** Names of certificates in a folder of evidence, by their GUID in the host's table. */
const FILE_NAMES: { readonly [guid: string]: string } = {
  [CERTIFICATE_GUID.VCEK]: "vcek",
  [CERTIFICATE_GUID.VLEK]: "vlek",
  [CERTIFICATE_GUID.ASK]: "ask",
  [CERTIFICATE_GUID.ARK]: "ark"
}

/** A folder of evidence, by file name. Throws RunFailed where the host's table of certificates makes no sense. */
export const evidenceFiles = (
  input: Pick<AttestInput, "key" | "vmpl" | "nonce" | "service">,
  outcome: AttestOutcome
): ReadonlyMap<string, Uint8Array> => {
  const { report, certificates, manifest, measurement } = outcome
  const hasManifest = input.vmpl === 0
  const evidence: EvidenceFile = {
    format: 1,
    key: input.key,
    vmpl: input.vmpl,
    nonce: hexOf(input.nonce),
    measurement: hexOf(measurement),
    manifest: hasManifest,
    service: input.service
  }
  const table = decodeCertificateTable(certificates)
  if (typeof table === "string") throw new RunFailed({ why: `the host's table of certificates ${table}` })
  const files = new Map<string, Uint8Array>([
    ["evidence.json", Buffer.from(`${JSON.stringify(evidence, null, 2)}\n`)],
    ["report.bin", report]
  ])
  if (hasManifest) files.set("manifest.bin", manifest)
  for (const { guid, bytes } of table) {
    const name = FILE_NAMES[guid] ?? guid
    files.set(`${name}.der`, bytes)
    files.set(`${name}.pem`, Buffer.from(pemOf(bytes)))
  }
  return files
}
