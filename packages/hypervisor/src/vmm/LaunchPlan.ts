import { PAGE_TYPE } from "@vmpl-lab/psp"
import { INITIAL_VMSA_GPA, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { FirmwareError } from "./FirmwareError.ts"
import type { FirmwareImage } from "./FirmwareImage.ts"
import { initialVmsa, RESET_EIP, type VmmType } from "./InitialVmsa.ts"
import { kernelHashPage } from "./KernelHashes.ts"
import { type MetadataSection, SECTION_TYPE } from "./MetadataSections.ts"

/** One LAUNCH_UPDATE of 4 KiB. */
export interface LaunchPage {
  readonly gpa: number
  /** One of PAGE_TYPE. */
  readonly type: number
  /** 4096 bytes; null where the type says what lands in the page (ZERO, SECRETS) or the VMM decides later (CPUID). */
  readonly contents: Uint8Array | null
}

/** What decides the vCPUs' initial state. */
export interface VcpuPlan {
  readonly image: FirmwareImage
  readonly vmmType: VmmType
  /** Number of vCPUs, at least 1. */
  readonly vcpus: number
  readonly signature: number
  readonly sevFeatures: number
}

export interface LaunchPlanInput extends VcpuPlan {
  /** The table of `kernelHashTable`; absent when no kernel is given. */
  readonly kernelHashes?: Uint8Array | null | undefined
}

/** One VMSA per vCPU, BSP first. Throws FirmwareError when the firmware has no entry point for APs but needs one. */
export const vmsaPages = ({ image, vmmType, vcpus, signature, sevFeatures }: VcpuPlan): ReadonlyArray<Uint8Array> => {
  if (!Number.isSafeInteger(vcpus) || vcpus < 1) throw new RangeError(`vcpus is ${vcpus}, expected at least 1`)
  const pages = [initialVmsa({ vmmType, eip: RESET_EIP, signature, sevFeatures, bsp: true })]
  if (vcpus === 1) return pages
  if (image.apEip === null) {
    throw new FirmwareError(image.name, `no SEV-ES reset block in the table, expected one to start ${vcpus} vCPUs`)
  }
  const ap = initialVmsa({ vmmType, eip: image.apEip, signature, sevFeatures, bsp: false })
  for (let i = 1; i < vcpus; i++) pages.push(ap)
  return pages
}

/** Page type and contents with which a VMM launches a metadata section. */
const launchOf = (
  { type, gpa }: MetadataSection,
  { image, vmmType, kernelHashes }: LaunchPlanInput
): Omit<LaunchPage, "gpa"> => {
  switch (type) {
    case SECTION_TYPE.SEC_MEM:
      return { type: vmmType === "gce" ? PAGE_TYPE.UNMEASURED : PAGE_TYPE.ZERO, contents: null }
    case SECTION_TYPE.SECRETS:
      return { type: PAGE_TYPE.SECRETS, contents: null }
    case SECTION_TYPE.CPUID:
      return { type: PAGE_TYPE.CPUID, contents: null }
    case SECTION_TYPE.KERNEL_HASHES:
      return kernelHashes && image.hashTable !== null
        ? { type: PAGE_TYPE.NORMAL, contents: kernelHashPage(kernelHashes, image.hashTable.gpa - gpa) }
        : { type: PAGE_TYPE.ZERO, contents: null }
    default:
      return { type: PAGE_TYPE.ZERO, contents: null }
  }
}

/** Metadata sections in a VMM's order: EC2 launches CPUID pages after all others. */
const ordered = ({ image, vmmType }: LaunchPlanInput): ReadonlyArray<MetadataSection> => {
  if (vmmType !== "ec2") return image.sections
  const isCpuid = ({ type }: MetadataSection): boolean => type === SECTION_TYPE.CPUID
  return [...image.sections.filter((section) => !isCpuid(section)), ...image.sections.filter(isCpuid)]
}

/** The firmware's own pages, NORMAL, up to 4 GiB. */
export const firmwarePages = (image: FirmwareImage): ReadonlyArray<LaunchPage> => {
  const pages: Array<LaunchPage> = []
  for (let offset = 0; offset < image.bytes.length; offset += PAGE_SIZE) {
    const contents = image.bytes.subarray(offset, offset + PAGE_SIZE)
    pages.push({ gpa: image.gpa + offset, type: PAGE_TYPE.NORMAL, contents })
  }
  return pages
}

/**
 * The pages of an SNP launch in the order in which the VMM launches them: firmware, metadata sections, VMSAs. Throws
 * FirmwareError when a kernel is given but the firmware has no page for its hashes.
 */
export const launchPlan = (input: LaunchPlanInput): ReadonlyArray<LaunchPage> => {
  const { image, kernelHashes } = input
  if (kernelHashes) {
    const hasPage = image.sections.some(({ type }) => type === SECTION_TYPE.KERNEL_HASHES)
    if (!hasPage || image.hashTable === null) {
      const missing = hasPage ? "SEV hash table entry" : "KERNEL_HASHES section"
      throw new FirmwareError(image.name, `no ${missing}, expected one to measure a kernel`)
    }
  }
  const pages = [...firmwarePages(image)]
  for (const section of ordered(input)) {
    const launch = launchOf(section, input)
    for (let offset = 0; offset < section.size; offset += PAGE_SIZE)
      pages.push({ gpa: section.gpa + offset, ...launch })
  }
  for (const contents of vmsaPages(input)) pages.push({ gpa: INITIAL_VMSA_GPA, type: PAGE_TYPE.VMSA, contents })
  return pages
}
