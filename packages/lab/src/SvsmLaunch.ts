import { AP_TRAMPOLINE_GPA, BLOCK, GUEST_VMPL, LEVEL_BLOCK } from "@vmpl-lab/guest"
import {
  FirmwareError,
  type FirmwareImage,
  initialVmsa,
  type LaunchIdentity,
  type LaunchPage,
  launchPlan,
  type MemorySlot,
  RESET_EIP,
  SECTION_TYPE,
  VCPU_SIGNATURE
} from "@vmpl-lab/hypervisor"
import { PAGE_TYPE } from "@vmpl-lab/psp"
import { INITIAL_VMSA_GPA, PAGE_SIZE, SEGMENT, SEV_FEATURES, setU64, VMSA } from "@vmpl-lab/sev-es"
import {
  encodeParameters,
  IMAGE,
  type SvsmBehaviour,
  type SvsmParameters,
  svsmCodePage,
  svsmRangeSize
} from "@vmpl-lab/svsm"
import type { InterruptLaunch } from "./InterruptRun.ts"

const MIB = 0x10_0000
/** Guest RAM below which the guest does not put its own pages: firmware metadata usually lies there. */
const HEAP_FLOOR = 16 * MIB
/** What is launched page by page stays within the simulated host's memory. */
export const LAUNCH_MAX = 128 * MIB
/** Sections that the SVSM's parameter page has room for. */
const SECTIONS_MAX = 200
const VCPU_TYPE = "EPYC-v4"

/** Everything that is launched, and where the pieces of the guest are. */
export interface SvsmLaunch {
  readonly plan: ReadonlyArray<LaunchPage>
  readonly memorySlots: ReadonlyArray<MemorySlot>
  readonly parameters: SvsmParameters
  /** First page of the guest's own heap. */
  readonly heapGpa: number
  /** Policy, ID block and shared pages, where a file says them. */
  readonly identity?: LaunchIdentity
}

/** What the workload asks of the launch. */
export interface LaunchNeeds {
  /** Level of the start-up vCPU, 1 or 2. */
  readonly guestVmpl: number
  /** Less privileged levels that every vCPU gets beside it. */
  readonly lowerLevels: number
  /** Entries of a PVALIDATE list that the SVSM serves in one call; 0: all. */
  readonly entriesPerCall: number
  /** Bytes of RAM above 4 GiB, a multiple of 2 MiB. */
  readonly highRam: number
  /** Which of its 2 MiB regions, counted from its start, the host backs with one page of 2 MiB. */
  readonly isLarge: (region: number) => boolean
  /** Whose answers the SVSM gives; the specification's when left out. */
  readonly behaviour?: SvsmBehaviour
  /** How VMPL0 and the guest's level take interrupts; undefined where neither does. */
  readonly interrupts?: InterruptLaunch | undefined
}

export const PLAIN_NEEDS: LaunchNeeds = {
  guestVmpl: GUEST_VMPL,
  lowerLevels: 0,
  entriesPerCall: 0,
  highRam: 0,
  isLarge: () => false
}
/** Where RAM goes on that does not fit below the firmware. */
export const HIGH_RAM_GPA = 0x1_0000_0000
const REGION = 2 * MIB

/** RAM for the guest's own pages and its first calling area, a multiple of 2 MiB. */
export const heapSize = (vcpus: number, { lowerLevels }: Pick<LaunchNeeds, "lowerLevels">): number =>
  up(vcpus * (BLOCK.SIZE + lowerLevels * LEVEL_BLOCK.SIZE) + PAGE_SIZE, 2 * MIB)

/** Where that begins: above everything that is launched below the SVSM. */
export const heapStart = (launchedEnd: number): number => up(Math.max(HEAP_FLOOR, launchedEnd), 2 * MIB)

const up = (value: number, to: number): number => Math.ceil(value / to) * to

/**
 * The launch of a guest with an SVSM: firmware and metadata pages as a plain launch has them, the SVSM's two image
 * pages, and one VMSA, the SVSM's boot processor at VMPL0. Throws FirmwareError when the firmware leaves no place for
 * what the guest needs.
 */
export const svsmLaunch = (image: FirmwareImage, vcpus: number, asked: Partial<LaunchNeeds> = {}): SvsmLaunch => {
  const needs: LaunchNeeds = { ...PLAIN_NEEDS, ...asked }
  const { interrupts } = needs
  const sectionsEnd = Math.max(0, ...image.sections.map(({ gpa, size }) => gpa + size))
  const heapGpa = heapStart(sectionsEnd)
  const ramSize = heapGpa + heapSize(vcpus, needs)
  const svsm = { gpa: ramSize, size: svsmRangeSize(vcpus, interrupts !== undefined) }
  if (svsm.gpa + svsm.size > image.gpa) {
    throw new FirmwareError(image.name, `sections end at 0x${sectionsEnd.toString(16)}, expected room below the image`)
  }
  if (image.sections.some(({ gpa, size }) => gpa < AP_TRAMPOLINE_GPA + PAGE_SIZE && AP_TRAMPOLINE_GPA < gpa + size)) {
    throw new FirmwareError(image.name, "a section covers GPA 0x8000, expected it free: the guest's APs start there")
  }
  const launched = image.sections.reduce((sum, { size }) => sum + size, image.bytes.length)
  if (launched > LAUNCH_MAX) {
    const mib = Math.ceil(launched / MIB)
    throw new FirmwareError(image.name, `image and sections are ${mib} MiB, expected at most ${LAUNCH_MAX / MIB} MiB`)
  }
  if (image.sections.length > SECTIONS_MAX) {
    throw new FirmwareError(image.name, `${image.sections.length} sections, expected at most ${SECTIONS_MAX}`)
  }
  const own = parametersOf(image, vcpus, ramSize, svsm, needs)
  const parameters = interrupts === undefined ? own : { ...own, interrupts: interrupts.svsm }
  const input = { image, vmmType: "QEMU", vcpus: 1, signature: 0, sevFeatures: SEV_FEATURES.SNPActive } as const
  const firmware = launchPlan(input).filter(({ type }) => type !== PAGE_TYPE.VMSA)
  const plan: ReadonlyArray<LaunchPage> = [
    ...firmware,
    { gpa: svsm.gpa + IMAGE.CODE, type: PAGE_TYPE.NORMAL, contents: svsmCodePage() },
    { gpa: svsm.gpa + IMAGE.PARAMETERS, type: PAGE_TYPE.UNMEASURED, contents: encodeParameters(parameters) },
    { gpa: INITIAL_VMSA_GPA, type: PAGE_TYPE.VMSA, contents: bootVmsa(svsm.gpa, interrupts?.svsmFeatures ?? 0) }
  ]
  const memorySlots = [
    { gfn: 0, pages: (svsm.gpa + svsm.size) / PAGE_SIZE },
    { gfn: image.gpa / PAGE_SIZE, pages: image.bytes.length / PAGE_SIZE },
    ...highRamSlot(needs)
  ]
  return { plan, memorySlots, parameters, heapGpa }
}

export const highRamSlot = ({
  highRam,
  isLarge
}: Pick<LaunchNeeds, "highRam" | "isLarge">): ReadonlyArray<MemorySlot> => {
  if (highRam === 0) return []
  const large = new Set<number>()
  for (let region = 0; region < highRam / REGION; region++) {
    if (isLarge(region)) large.add(HIGH_RAM_GPA / REGION + region)
  }
  return [{ gfn: HIGH_RAM_GPA / PAGE_SIZE, pages: highRam / PAGE_SIZE, large }]
}

const parametersOf = (
  image: FirmwareImage,
  vcpus: number,
  ramSize: number,
  svsm: SvsmParameters["svsm"],
  { guestVmpl, entriesPerCall, highRam, behaviour }: LaunchNeeds
): SvsmParameters => {
  const only = (type: number, name: string): number => {
    const section = image.sections.find((candidate) => candidate.type === type)
    if (section === undefined) {
      throw new FirmwareError(image.name, `no section of type ${type}, expected one: the guest needs its ${name} page`)
    }
    return section.gpa
  }
  const callingArea = image.sections.find(({ type }) => type === SECTION_TYPE.SVSM_CAA)
  const given: ReadonlyArray<number> = [SECTION_TYPE.SECRETS, SECTION_TYPE.CPUID, SECTION_TYPE.SVSM_CAA]
  return {
    vcpus,
    ramSize,
    highRam: { gpa: HIGH_RAM_GPA, size: highRam },
    guestVmpl,
    entriesPerCall,
    ...(behaviour === undefined ? {} : { behaviour }),
    svsm,
    firmware: { gpa: image.gpa, size: image.bytes.length },
    resetVector: RESET_EIP,
    secretsGpa: only(SECTION_TYPE.SECRETS, "secrets"),
    cpuidGpa: only(SECTION_TYPE.CPUID, "CPUID"),
    callingAreaGpa: callingArea?.gpa ?? ramSize - PAGE_SIZE,
    callingAreaLaunched: callingArea !== undefined,
    preValidated: image.sections.filter(({ type }) => !given.includes(type)).map(({ gpa, size }) => ({ gpa, size }))
  }
}

/** The SVSM's boot VMSA: QEMU's reset state with flat segments, protected mode, and CS:RIP at the image's entry. */
const bootVmsa = (base: number, features: number): Uint8Array => {
  const bytes = initialVmsa({
    vmmType: "QEMU",
    eip: RESET_EIP,
    signature: VCPU_SIGNATURE[VCPU_TYPE] ?? 0,
    sevFeatures: SEV_FEATURES.SNPActive | features,
    bsp: true
  })
  const view = new DataView(bytes.buffer)
  const flat = (offset: number, selector: number, attributes: number): void => {
    view.setUint16(offset + SEGMENT.selector, selector, true)
    view.setUint16(offset + SEGMENT.attributes, attributes, true)
    view.setUint32(offset + SEGMENT.limit, 0xffff_ffff, true)
    setU64(view, offset + SEGMENT.base, 0)
  }
  flat(VMSA.cs, 8, 0xc9b)
  for (const data of [VMSA.es, VMSA.ss, VMSA.ds, VMSA.fs]) flat(data, 16, 0xc93)
  setU64(view, VMSA.cr0, 0x11)
  setU64(view, VMSA.rip, base + IMAGE.BOOT_ENTRY)
  return bytes
}
