import { ID_AUTH, ID_AUTH_SIZE, ID_BLOCK, ID_BLOCK_SIZE, PAGE_TYPE, PUBLIC_KEY } from "@vmpl-lab/psp"
import { INITIAL_VMSA_GPA, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { FirmwareError, hex } from "../FirmwareError.ts"
import type { LaunchPage } from "../LaunchPlan.ts"
import { type IgvmFile, type IgvmHeader, igvmError } from "./IgvmFile.ts"

/** An ID block with the page of keys and signatures, as LAUNCH_FINISH takes them. */
export interface IgvmIdBlock {
  readonly block: Uint8Array
  readonly auth: Uint8Array
  readonly authKeyEn: boolean
}

/** What an IGVM file asks of an SNP launch. */
export interface IgvmPlan {
  /** In file order. */
  readonly pages: ReadonlyArray<LaunchPage>
  /** GUEST_POLICY; null where the file leaves it to the VMM. */
  readonly policy: bigint | null
  readonly idBlock: IgvmIdBlock | null
}

/** Fields of PAGE_DATA and its flags. @spec IGVM PAGE_DATA */
const PAGE_DATA = { gpa: 0, fileOffset: 12, flags: 16, type: 20 } as const
const PAGE_FLAG = { IS_2M: 1, UNMEASURED: 2, SHARED: 4 } as const
const DATA_TYPE = { NORMAL: 0, SECRETS: 1, CPUID: 2, CPUID_XF: 3 } as const
const PAGES_PER_2M = 512

const PARAMETER_AREA = { size: 0, index: 8, fileOffset: 12 } as const
const PARAMETER_INSERT = { gpa: 0, index: 12 } as const
const VP_CONTEXT = { gpa: 0, fileOffset: 12, index: 16 } as const
const POLICY = { policy: 0 } as const
/** More than any guest's parameters need. */
const PARAMETER_AREA_MAX = 1 << 24
const GPA_END = 1n << 52n

/** Fields of SNP_ID_BLOCK. Its keys have a reserved word after the curve. @spec IGVM SNP_ID_BLOCK */
const ID_HEADER = {
  authorKeyEnabled: 0x004,
  ld: 0x008,
  familyId: 0x038,
  imageId: 0x048,
  version: 0x058,
  guestSvn: 0x05c,
  idKeyAlgorithm: 0x060,
  authorKeyAlgorithm: 0x064,
  idKeySignature: 0x068,
  idKey: 0x0f8,
  authorKeySignature: 0x190,
  authorKey: 0x220
} as const
const SIGNATURE_PART = 144

class Planner {
  readonly #file: IgvmFile
  readonly #areas = new Map<number, number>()
  readonly pages: Array<LaunchPage> = []
  policy: bigint | null = null
  idHeader: IgvmHeader | null = null

  constructor(file: IgvmFile) {
    this.#file = file
  }

  add(header: IgvmHeader): void {
    switch (header.kind.name) {
      case "GUEST_POLICY":
        this.policy = header.body.getBigUint64(POLICY.policy, true)
        break
      case "PARAMETER_AREA":
        this.#parameterArea(header)
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
        if (this.idHeader !== null) throw this.#fail(header, 0, 4, "a second SNP_ID_BLOCK, expected at most one")
        this.idHeader = header
        break
      default:
      // Parameters, required memory and error ranges are no launch steps.
    }
  }

  #fail({ at }: IgvmHeader, offset: number, size: number, why: string): FirmwareError {
    return igvmError(this.#file, at + offset, size, why)
  }

  #gpa(header: IgvmHeader, alignment: number): number {
    const gpa = header.body.getBigUint64(0, true)
    if (gpa % BigInt(alignment) !== 0n || gpa >= GPA_END) {
      throw this.#fail(
        header,
        0,
        8,
        `gPA of ${header.kind.name} is 0x${gpa.toString(16)}, expected a multiple of ${alignment} below 2^52`
      )
    }
    return Number(gpa)
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

  #pageData(header: IgvmHeader): void {
    const { body } = header
    const flags = body.getUint32(PAGE_DATA.flags, true)
    const type = body.getUint16(PAGE_DATA.type, true)
    const has = (flag: number): boolean => (flags & flag) !== 0
    if (flags > 7) throw this.#fail(header, PAGE_DATA.flags, 4, `flags are ${hex(flags)}, expected bits 0 to 2`)
    if (type > DATA_TYPE.CPUID_XF) throw this.#fail(header, PAGE_DATA.type, 2, `data type is ${type}, expected 0 to 3`)
    const isLarge = has(PAGE_FLAG.IS_2M)
    const isSpecial = type !== DATA_TYPE.NORMAL
    if (isSpecial && isLarge) {
      throw this.#fail(
        header,
        PAGE_DATA.flags,
        4,
        `a page of 2 MiB of data type ${type}, expected 4 KiB: SNP has no other`
      )
    }
    if (isSpecial && has(PAGE_FLAG.SHARED)) {
      throw this.#fail(header, PAGE_DATA.flags, 4, `a shared page of data type ${type}, expected a private one`)
    }
    const count = isLarge ? PAGES_PER_2M : 1
    const gpa = this.#gpa(header, count * PAGE_SIZE)
    const data = this.#data(header, PAGE_DATA.fileOffset, count * PAGE_SIZE)
    if (type === DATA_TYPE.SECRETS && data !== null) {
      throw this.#fail(
        header,
        PAGE_DATA.fileOffset,
        4,
        "a secrets page with contents, expected none: the firmware fills it"
      )
    }
    // Shared pages are the host's to write; no launch command takes them.
    if (has(PAGE_FLAG.SHARED)) return
    for (let i = 0; i < count; i++) {
      const contents = data?.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE) ?? null
      this.pages.push({ gpa: gpa + i * PAGE_SIZE, ...launchOf(type, has(PAGE_FLAG.UNMEASURED), contents) })
    }
  }

  #parameterArea(header: IgvmHeader): void {
    const size = header.body.getBigUint64(PARAMETER_AREA.size, true)
    const index = header.body.getUint32(PARAMETER_AREA.index, true)
    if (size === 0n || size > BigInt(PARAMETER_AREA_MAX)) {
      throw this.#fail(header, 0, 8, `parameter area of ${size} bytes, expected 1 to ${PARAMETER_AREA_MAX}`)
    }
    if (this.#areas.has(index)) throw this.#fail(header, 8, 4, `parameter area ${index} is there twice, expected once`)
    this.#data(header, PARAMETER_AREA.fileOffset, Number(size))
    this.#areas.set(index, Number(size))
  }

  /** The whole area, page by page: what the VMM fills in is not known to the guest's owner. */
  #parameterInsert(header: IgvmHeader): void {
    const gpa = this.#gpa(header, PAGE_SIZE)
    const index = header.body.getUint32(PARAMETER_INSERT.index, true)
    const size = this.#areas.get(index)
    if (size === undefined) {
      throw this.#fail(header, PARAMETER_INSERT.index, 4, `parameter area ${index} is not there, expected one before`)
    }
    for (let offset = 0; offset < size; offset += PAGE_SIZE) {
      this.pages.push({ gpa: gpa + offset, type: PAGE_TYPE.UNMEASURED, contents: new Uint8Array(PAGE_SIZE) })
    }
  }

  #vpContext(header: IgvmHeader): void {
    const gpa = this.#gpa(header, PAGE_SIZE)
    const contents = this.#data(header, VP_CONTEXT.fileOffset, PAGE_SIZE)
    if (contents === null) throw this.#fail(header, VP_CONTEXT.fileOffset, 4, "no contents, expected a VMSA")
    this.pages.push({ gpa, type: PAGE_TYPE.VMSA, contents })
  }
}

/** Page type and contents of a page of data. A page without contents is measured as one of zeros. */
const launchOf = (type: number, unmeasured: boolean, contents: Uint8Array | null): Omit<LaunchPage, "gpa"> => {
  if (type === DATA_TYPE.SECRETS) return { type: PAGE_TYPE.SECRETS, contents: null }
  // Without contents the VMM puts in what its processor has.
  if (type !== DATA_TYPE.NORMAL) return { type: PAGE_TYPE.CPUID, contents }
  return {
    type: unmeasured ? PAGE_TYPE.UNMEASURED : PAGE_TYPE.NORMAL,
    contents: contents ?? new Uint8Array(PAGE_SIZE)
  }
}

/** AMD's structures out of IGVM's, which says neither the policy nor pads anything. */
const idBlockOf = ({ body }: IgvmHeader, policy: bigint): IgvmIdBlock => {
  const part = (at: number, size: number): Uint8Array => new Uint8Array(body.buffer, body.byteOffset + at, size)
  const block = new Uint8Array(ID_BLOCK_SIZE)
  block.set(part(ID_HEADER.ld, ID_HEADER.idKeyAlgorithm - ID_HEADER.ld))
  new DataView(block.buffer).setBigUint64(ID_BLOCK.policy, policy, true)
  const auth = new Uint8Array(ID_AUTH_SIZE)
  auth.set(part(ID_HEADER.idKeyAlgorithm, 4), ID_AUTH.id_key_algo)
  auth.set(part(ID_HEADER.authorKeyAlgorithm, 4), ID_AUTH.auth_key_algo)
  const signature = (from: number, to: number): void => auth.set(part(from, SIGNATURE_PART), to)
  const key = (from: number, to: number): void => {
    auth.set(part(from, 4), to)
    auth.set(part(from + 8, SIGNATURE_PART), to + PUBLIC_KEY.qx)
  }
  signature(ID_HEADER.idKeySignature, ID_AUTH.id_block_sig)
  key(ID_HEADER.idKey, ID_AUTH.id_key)
  signature(ID_HEADER.authorKeySignature, ID_AUTH.id_key_sig)
  key(ID_HEADER.authorKey, ID_AUTH.author_key)
  return { block, auth, authKeyEn: body.getUint8(ID_HEADER.authorKeyEnabled) !== 0 }
}

/** Guest policy of a launch whose file says none: ABI 0.0, SMT allowed, bit 17 as it must be. */
const DEFAULT_POLICY = 0x3_0000n

/** The launch of an IGVM file, in file order. Throws FirmwareError for what SNP cannot launch. @spec IGVM directives */
export const igvmPlan = (file: IgvmFile): IgvmPlan => {
  const planner = new Planner(file)
  for (const header of file.headers) planner.add(header)
  const { pages, policy, idHeader } = planner
  if (pages.length === 0) throw new FirmwareError(file.name, "nothing to launch, expected directives for SEV-SNP")
  return { pages, policy, idBlock: idHeader === null ? null : idBlockOf(idHeader, policy ?? DEFAULT_POLICY) }
}

/** CR0 of a VMSA that KVM starts: protection on or off, with caches as after a reset. */
const KVM_CR0: ReadonlyArray<number> = [0x30, 0x31]

/**
 * What KVM asks of an IGVM file beyond SNP: one VMSA, launched last, at the address where KVM puts it. Throws
 * FirmwareError. @spec COCONUT igvmmeasure
 */
export const checkForKvm = (name: string, { pages }: IgvmPlan): void => {
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
