import { PAGE_TYPE } from "@vmpl-lab/psp"
import { INITIAL_VMSA_GPA, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { FirmwareError, hex } from "../FirmwareError.ts"
import type { LaunchPage } from "../LaunchPlan.ts"
import { AUTHOR_FIELDS, AUTHOR_KEY_ENABLED, type IgvmIdBlock, readIdBlock } from "./IdBlockHeader.ts"
import { type IgvmFile, type IgvmHeader, igvmError } from "./IgvmFile.ts"
import { ParameterAreas } from "./ParameterAreas.ts"
import { type IgvmEnvironment, PARAMETERS } from "./Parameters.ts"

/** A page that the host fills and shares with the guest: no launch command takes it. */
export interface SharedPage {
  readonly gpa: number
  /** 4096 bytes; null: zeros. */
  readonly contents: Uint8Array | null
}

/** Guest memory that must be there, in bytes. */
export interface RequiredMemory {
  readonly gpa: number
  readonly size: number
}

/** What an IGVM file asks of an SNP launch. */
export interface IgvmPlan {
  /** In file order. */
  readonly pages: ReadonlyArray<LaunchPage>
  readonly shared: ReadonlyArray<SharedPage>
  readonly required: ReadonlyArray<RequiredMemory>
  /** GUEST_POLICY; null where the file leaves it to the VMM. */
  readonly policy: bigint | null
  readonly idBlock: IgvmIdBlock | null
}

/** What is decided outside of the file. */
export interface IgvmChoices {
  /** What parameters are about; without it areas keep what the file gives them, which measures alike. */
  readonly environment?: IgvmEnvironment
  /** A page of data without contents is a ZERO page, as QEMU launches it, and not a NORMAL one of zeros. */
  readonly nativeZero?: boolean
  /** A PARAMETER_INSERT counts as one page, as COCONUT's igvmmeasure has it, and not as the whole area. */
  readonly onePageInserts?: boolean
}

/** Fields of PAGE_DATA and its flags. @spec IGVM PAGE_DATA */
const PAGE_DATA = { gpa: 0, fileOffset: 12, flags: 16, type: 20 } as const
const PAGE_FLAG = { IS_2M: 1, UNMEASURED: 2, SHARED: 4 } as const
const DATA_TYPE = { NORMAL: 0, SECRETS: 1, CPUID: 2, CPUID_XF: 3 } as const
const PAGES_PER_2M = 512

const PARAMETER_AREA_FILE_OFFSET = 12
const VP_CONTEXT = { gpa: 0, fileOffset: 12, index: 16 } as const
const REQUIRED_MEMORY = { gpa: 0, size: 12, flags: 16 } as const
const ERROR_RANGE = { gpa: 0, size: 12 } as const
const VTL2_PROTECTABLE = 1
const GPA_END = 1n << 52n
/** 1 GiB of pages: a small file can ask for far more than it holds. */
const PAGES_MAX = 1 << 18
const ZERO_PAGE = new Uint8Array(PAGE_SIZE)

class Planner {
  readonly #file: IgvmFile
  readonly #choices: IgvmChoices
  readonly #areas: ParameterAreas
  /** Page numbers that are launched or shared, VMSAs apart: they are in no memory slot. */
  readonly #taken = new Set<number>()
  readonly pages: Array<LaunchPage> = []
  readonly shared: Array<SharedPage> = []
  readonly required: Array<RequiredMemory> = []
  policy: bigint | null = null
  idHeader: IgvmHeader | null = null
  #vmsas = 0

  constructor(file: IgvmFile, choices: IgvmChoices) {
    this.#file = file
    this.#choices = choices
    this.#areas = new ParameterAreas(file, choices.environment)
  }

  add(header: IgvmHeader): void {
    const { kind, body } = header
    switch (kind.name) {
      case "GUEST_POLICY":
        if (this.policy !== null) throw this.#fail(header, 0, 8, "a second GUEST_POLICY, expected at most one")
        this.policy = body.getBigUint64(0, true)
        break
      case "PARAMETER_AREA":
        this.#areas.add(header, (size) => this.#data(header, PARAMETER_AREA_FILE_OFFSET, size))
        break
      case "PAGE_DATA":
        this.#pageData(header)
        break
      case "PARAMETER_INSERT":
        this.#parameterInsert(header)
        break
      case "VP_CONTEXT":
        this.#vpContext(header)
        break
      case "SNP_ID_BLOCK":
        this.#idBlock(header)
        break
      case "REQUIRED_MEMORY":
        this.#requiredMemory(header)
        break
      case "ERROR_RANGE":
        this.#errorRange(header)
        break
      default:
        if (PARAMETERS.includes(kind.name)) this.#areas.write(header)
    }
  }

  #fail(header: IgvmHeader, offset: number, size: number, why: string): FirmwareError {
    return igvmError(this.#file, header, offset, size, why)
  }

  #gpa(header: IgvmHeader, alignment: number): number {
    const gpa = header.body.getBigUint64(0, true)
    if (gpa % BigInt(alignment) !== 0n || gpa >= GPA_END) {
      const expected = `a multiple of ${alignment} below 2^52`
      throw this.#fail(header, 0, 8, `gPA is 0x${gpa.toString(16)}, expected ${expected}`)
    }
    return Number(gpa)
  }

  /** A size in bytes that must be that of whole pages, from `gpa` on. */
  #size(header: IgvmHeader, offset: number, gpa: number): number {
    const size = header.body.getUint32(offset, true)
    if (size === 0 || size % PAGE_SIZE !== 0 || gpa + size > Number(GPA_END)) {
      throw this.#fail(header, offset, 4, `${size} bytes, expected a multiple of ${PAGE_SIZE} that ends below 2^52`)
    }
    return size
  }

  /** Contents at a file offset; null where the header has none. */
  #data(header: IgvmHeader, offset: number, size: number): Uint8Array | null {
    const start = header.body.getUint32(offset, true)
    if (start === 0) return null
    const { bytes } = this.#file
    if (start + size > bytes.length) {
      const range = `${hex(start)} to ${hex(start + size - 1)}`
      throw this.#fail(header, offset, 4, `contents are bytes ${range}, expected them within ${hex(bytes.length)}`)
    }
    return bytes.subarray(start, start + size)
  }

  /** Every page has one place and comes once: the firmware does not launch a page that is the guest's already. */
  #take(header: IgvmHeader, gpa: number): void {
    const page = gpa / PAGE_SIZE
    if (this.#taken.has(page)) {
      throw this.#fail(header, 0, 8, `gPA ${hex(gpa)} has been given a page before, expected every page once`)
    }
    if (this.#taken.size === PAGES_MAX) {
      throw this.#fail(header, 0, 8, `more than ${PAGES_MAX} pages, expected at most 1 GiB`)
    }
    this.#taken.add(page)
  }

  #launch(header: IgvmHeader, page: LaunchPage): void {
    this.#take(header, page.gpa)
    this.pages.push(page)
  }

  #share(header: IgvmHeader, page: SharedPage): void {
    this.#take(header, page.gpa)
    this.shared.push(page)
  }

  #pageData(header: IgvmHeader): void {
    const { body } = header
    const flags = body.getUint32(PAGE_DATA.flags, true)
    const type = body.getUint16(PAGE_DATA.type, true)
    const has = (flag: number): boolean => (flags & flag) !== 0
    const flagged = (why: string): FirmwareError => this.#fail(header, PAGE_DATA.flags, 4, why)
    if (flags > 7) throw flagged(`flags are ${hex(flags)}, expected bits 0 to 2`)
    if (type > DATA_TYPE.CPUID_XF) throw this.#fail(header, PAGE_DATA.type, 2, `data type is ${type}, expected 0 to 3`)
    const isLarge = has(PAGE_FLAG.IS_2M)
    if (type !== DATA_TYPE.NORMAL) {
      if (isLarge) throw flagged(`a page of 2 MiB of data type ${type}, expected 4 KiB: SNP has no other`)
      if (has(PAGE_FLAG.SHARED)) throw flagged(`a shared page of data type ${type}, expected a private one`)
    }
    const count = isLarge ? PAGES_PER_2M : 1
    const gpa = this.#gpa(header, count * PAGE_SIZE)
    const data = this.#data(header, PAGE_DATA.fileOffset, count * PAGE_SIZE)
    if (type === DATA_TYPE.SECRETS && data !== null) {
      const why = "a secrets page with contents, expected none: the firmware fills it"
      throw this.#fail(header, PAGE_DATA.fileOffset, 4, why)
    }
    for (let i = 0; i < count; i++) {
      const contents = data?.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE) ?? null
      const at = gpa + i * PAGE_SIZE
      // Shared pages are the host's to write; no launch command takes them.
      if (has(PAGE_FLAG.SHARED)) this.#share(header, { gpa: at, contents })
      else this.#launch(header, { gpa: at, ...this.#launchOf(type, has(PAGE_FLAG.UNMEASURED), contents) })
    }
  }

  /** Page type and contents of a page of data. A page without contents is measured as one of zeros. */
  #launchOf(type: number, unmeasured: boolean, contents: Uint8Array | null): Omit<LaunchPage, "gpa"> {
    if (type === DATA_TYPE.SECRETS) return { type: PAGE_TYPE.SECRETS, contents: null }
    // Without contents the VMM puts in what its processor has.
    if (type !== DATA_TYPE.NORMAL) return { type: PAGE_TYPE.CPUID, contents }
    if (unmeasured) return { type: PAGE_TYPE.UNMEASURED, contents: contents ?? ZERO_PAGE }
    if (contents === null && this.#choices.nativeZero === true) return { type: PAGE_TYPE.ZERO, contents: null }
    return { type: PAGE_TYPE.NORMAL, contents: contents ?? ZERO_PAGE }
  }

  /** The whole area, page by page: what the VMM fills in is not known to the guest's owner. */
  #parameterInsert(header: IgvmHeader): void {
    const gpa = this.#gpa(header, PAGE_SIZE)
    const area = this.#areas.take(header)
    const size = this.#choices.onePageInserts === true ? PAGE_SIZE : area.length
    for (let offset = 0; offset < size; offset += PAGE_SIZE) {
      const contents = area.subarray(offset, offset + PAGE_SIZE)
      this.#launch(header, { gpa: gpa + offset, type: PAGE_TYPE.UNMEASURED, contents })
    }
  }

  #vpContext(header: IgvmHeader): void {
    const gpa = this.#gpa(header, PAGE_SIZE)
    const contents = this.#data(header, VP_CONTEXT.fileOffset, PAGE_SIZE)
    if (contents === null) throw this.#fail(header, VP_CONTEXT.fileOffset, 4, "no contents, expected a VMSA")
    const index = header.body.getUint16(VP_CONTEXT.index, true)
    if (index !== this.#vmsas) {
      const why = `VP index is ${index}, expected ${this.#vmsas}: VMSAs come in turn`
      throw this.#fail(header, VP_CONTEXT.index, 2, why)
    }
    this.#vmsas++
    this.pages.push({ gpa, type: PAGE_TYPE.VMSA, contents })
  }

  #idBlock(header: IgvmHeader): void {
    const { body } = header
    if (this.idHeader !== null) throw this.#fail(header, 0, 4, "a second SNP_ID_BLOCK, expected at most one")
    const enabled = body.getUint8(AUTHOR_KEY_ENABLED)
    if (enabled > 1) {
      throw this.#fail(header, AUTHOR_KEY_ENABLED, 1, `author key enabled is ${enabled}, expected 0 or 1`)
    }
    const { start, end } = AUTHOR_FIELDS
    const author = new Uint8Array(body.buffer, body.byteOffset + start, end - start)
    if (enabled === 0 && author.some((byte) => byte !== 0)) {
      throw this.#fail(header, start, end - start, "an author's key that is not enabled, expected zeros")
    }
    this.idHeader = header
  }

  #requiredMemory(header: IgvmHeader): void {
    const gpa = this.#gpa(header, PAGE_SIZE)
    const size = this.#size(header, REQUIRED_MEMORY.size, gpa)
    const flags = header.body.getUint32(REQUIRED_MEMORY.flags, true)
    if (flags > VTL2_PROTECTABLE) {
      throw this.#fail(header, REQUIRED_MEMORY.flags, 4, `flags are ${hex(flags)}, expected bit 0 at most`)
    }
    this.required.push({ gpa, size })
  }

  /** The guest tells the host of errors there: shared memory. */
  #errorRange(header: IgvmHeader): void {
    const gpa = this.#gpa(header, PAGE_SIZE)
    const size = this.#size(header, ERROR_RANGE.size, gpa)
    for (let offset = 0; offset < size; offset += PAGE_SIZE) this.#share(header, { gpa: gpa + offset, contents: null })
  }
}

/** Guest policy of a launch whose file says none: ABI 0.0, SMT allowed, bit 17 as it must be. */
const DEFAULT_POLICY = 0x3_0000n

/** The launch of an IGVM file, in file order. Throws FirmwareError for what SNP cannot launch. @spec IGVM directives */
export const igvmPlan = (file: IgvmFile, choices: IgvmChoices = {}): IgvmPlan => {
  const planner = new Planner(file, choices)
  for (const header of file.headers) planner.add(header)
  const { pages, shared, required, policy, idHeader } = planner
  if (pages.length === 0) throw new FirmwareError(file.name, "nothing to launch, expected directives for SEV-SNP")
  const idBlock = idHeader === null ? null : readIdBlock(idHeader.body, policy ?? DEFAULT_POLICY)
  return { pages, shared, required, policy, idBlock }
}

/** CR0 of a VMSA that KVM starts: protection on or off, with caches as after a reset. */
const KVM_CR0: ReadonlyArray<number> = [0x30, 0x31]

/**
 * What KVM asks of an IGVM file beyond SNP: one VMSA, launched last, at the address where KVM puts it. Throws
 * FirmwareError. @spec COCONUT igvmmeasure
 */
export const checkForKvm = (name: string, { pages }: Pick<IgvmPlan, "pages">): void => {
  const vmsas = pages.filter(({ type }) => type === PAGE_TYPE.VMSA)
  const [vmsa] = vmsas
  if (vmsa === undefined || vmsas.length > 1)
    throw new FirmwareError(name, `${vmsas.length} VMSAs, expected one for KVM`)
  if (vmsa.gpa !== INITIAL_VMSA_GPA) {
    throw new FirmwareError(name, `VMSA at gPA ${hex(vmsa.gpa)}, expected ${hex(INITIAL_VMSA_GPA)} for KVM`)
  }
  if (pages.at(-1) !== vmsa) throw new FirmwareError(name, "pages follow the VMSA, expected it last for KVM")
  const { buffer, byteOffset } = vmsa.contents!
  const cr0 = new DataView(buffer, byteOffset).getUint32(VMSA.cr0, true)
  if (!KVM_CR0.includes(cr0))
    throw new FirmwareError(name, `CR0 of the VMSA is ${hex(cr0)}, expected 0x30 or 0x31 for KVM`)
}
