import { createHash } from "node:crypto"
import { LaunchDigest } from "@vmpl-lab/psp"
import { FirmwareError } from "./FirmwareError.ts"
import type { FirmwareImage } from "./FirmwareImage.ts"
import type { VmmType } from "./InitialVmsa.ts"
import { type LaunchPage, vmsaPages } from "./LaunchPlan.ts"

/** The SNP launch digest of a plan, 48 bytes: what LAUNCH_UPDATE with VMPL permissions of zero would measure. */
export const measureSnp = (plan: ReadonlyArray<LaunchPage>): Uint8Array => {
  const digest = new LaunchDigest()
  for (const { gpa, type, contents } of plan) digest.update(type, gpa, contents)
  return digest.value
}

export interface SevMeasurement {
  readonly image: FirmwareImage
  /** The table of `kernelHashTable`; absent when no kernel is given. */
  readonly kernelHashes?: Uint8Array | null | undefined
}

export interface SevEsMeasurement extends SevMeasurement {
  readonly vmmType: VmmType
  readonly vcpus: number
  readonly signature: number
}

/** LAUNCH_UPDATE_DATA and LAUNCH_UPDATE_VMSA of SEV hash the bytes alone, neither addresses nor page types. */
const sha256Of = ({ image, kernelHashes }: SevMeasurement, vmsas: ReadonlyArray<Uint8Array>): Uint8Array => {
  if (kernelHashes && image.hashTable === null) {
    throw new FirmwareError(image.name, "no SEV hash table entry, expected one to measure a kernel")
  }
  const digest = createHash("sha256").update(image.bytes)
  if (kernelHashes) digest.update(kernelHashes)
  for (const vmsa of vmsas) digest.update(vmsa)
  return new Uint8Array(digest.digest())
}

/** The launch digest of plain SEV, 32 bytes: firmware, then the hash table. @spec SEV-API LAUNCH_MEASURE */
export const measureSev = (input: SevMeasurement): Uint8Array => sha256Of(input, [])

/** The launch digest of SEV-ES, 32 bytes: as SEV, then the vCPUs' VMSAs with SEV_FEATURES 0. @spec SEV-API LAUNCH_MEASURE */
export const measureSevEs = (input: SevEsMeasurement): Uint8Array =>
  sha256Of(input, vmsaPages({ ...input, sevFeatures: 0 }))
