import { crc32 } from "node:zlib"
import { PAGE_TYPE } from "@vmpl-lab/psp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { FirmwareError } from "../FirmwareError.ts"
import type { LaunchPage } from "../LaunchPlan.ts"
import { IGVM_HEADER, type IgvmHeaderName } from "./Headers.ts"
import { type IgvmIdBlock, writeIdBlock } from "./IdBlockHeader.ts"
import type { RequiredMemory } from "./IgvmPlan.ts"

/** A parameter of a page that the VMM writes into it. */
export interface IgvmParameter {
  readonly name: IgvmHeaderName
  /** Where in its page. */
  readonly offset: number
}

/** What goes into a file for SEV-SNP. */
export interface IgvmContents {
  readonly policy: bigint
  /**
   * In launch order. UNMEASURED pages become parameter areas of one page, with `parameters` where they are for this
   * page; ZERO pages are not in the format, and become pages of zeros.
   */
  readonly pages: ReadonlyArray<LaunchPage>
  /** Parameters by the gPA of their page. */
  readonly parameters: ReadonlyMap<number, ReadonlyArray<IgvmParameter>>
  readonly required: ReadonlyArray<RequiredMemory>
  readonly idBlock?: IgvmIdBlock | undefined
}

/** The bit by which headers name the file's only platform. */
const MASK = 1
const SEV_SNP = 2
const FIXED_SIZE = 24
const REQUIRED_MAX = 2 ** 32 - PAGE_SIZE

const DATA_TYPES: { readonly [type: number]: number } = {
  [PAGE_TYPE.NORMAL]: 0,
  [PAGE_TYPE.ZERO]: 0,
  [PAGE_TYPE.SECRETS]: 1,
  [PAGE_TYPE.CPUID]: 2
}

/** A body of words: each {value, bytes}, one behind the other. */
const bodyOf = (...fields: ReadonlyArray<readonly [value: number | bigint, size: 1 | 2 | 4 | 8]>): Buffer => {
  const body = Buffer.alloc(fields.reduce((sum, [, size]) => sum + size, 0))
  let at = 0
  for (const [value, size] of fields) {
    if (size === 8) body.writeBigUInt64LE(BigInt(value), at)
    else body.writeUIntLE(Number(value), at, size)
    at += size
  }
  return body
}

/** Headers and data of a file, as they grow. */
class FileParts {
  readonly #headers: Array<Buffer> = []
  readonly #data: Array<Uint8Array> = []
  /** Headers whose word at an offset is a file offset: of that place in the data. */
  readonly #links: Array<{ readonly header: Buffer; readonly at: number; readonly page: number }> = []

  /** `data` is a page, of which the header has the file offset at `dataAt` in its body. */
  add(name: IgvmHeaderName, body: Uint8Array, data: Uint8Array | null = null, dataAt = 0): void {
    const header = Buffer.alloc(8 + Math.ceil(body.length / 8) * 8)
    header.writeUInt32LE(IGVM_HEADER[name], 0)
    header.writeUInt32LE(body.length, 4)
    header.set(body, 8)
    this.#headers.push(header)
    if (data === null) return
    this.#links.push({ header, at: 8 + dataAt, page: this.#data.length })
    this.#data.push(data)
  }

  bytes(): Uint8Array {
    const size = this.#headers.reduce((sum, { length }) => sum + length, 0)
    const start = Math.ceil((FIXED_SIZE + size) / PAGE_SIZE) * PAGE_SIZE
    for (const { header, at, page } of this.#links) header.writeUInt32LE(start + page * PAGE_SIZE, at)
    const file = Buffer.alloc(start + this.#data.length * PAGE_SIZE)
    file.write("IGVM", 0, "latin1")
    for (const [i, word] of [1, FIXED_SIZE, size, file.length].entries()) file.writeUInt32LE(word, 4 + 4 * i)
    file.set(Buffer.concat(this.#headers), FIXED_SIZE)
    for (const [i, page] of this.#data.entries()) file.set(page, start + i * PAGE_SIZE)
    file.writeUInt32LE(crc32(file.subarray(0, FIXED_SIZE + size)), FIXED_SIZE - 4)
    return new Uint8Array(file.buffer, file.byteOffset, file.length)
  }
}

const isZero = (contents: Uint8Array | null): boolean => contents === null || contents.every((byte) => byte === 0)

/**
 * An IGVM file of version 1 for SEV-SNP alone. What `igvmPlan` makes of it is the pages that were given, in their order.
 * `name` is for messages only. Throws FirmwareError where a page has no form in such a file.
 * @spec IGVM "file structure"
 */
export const writeIgvm = (name: string, contents: IgvmContents): Uint8Array => {
  const { policy, pages, parameters, required, idBlock } = contents
  const file = new FileParts()
  file.add("SUPPORTED_PLATFORM", bodyOf([MASK, 4], [0, 1], [SEV_SNP, 1], [1, 2], [0, 8]))
  file.add("GUEST_POLICY", bodyOf([policy, 8], [MASK, 4], [0, 4]))
  for (const { gpa, size } of required) {
    for (let offset = 0; offset < size; offset += REQUIRED_MAX) {
      const part = Math.min(size - offset, REQUIRED_MAX)
      file.add("REQUIRED_MEMORY", bodyOf([gpa + offset, 8], [MASK, 4], [part, 4], [0, 4], [0, 4]))
    }
  }
  let areas = 0
  let vmsas = 0
  for (const { gpa, type, contents: bytes } of pages) {
    const data = isZero(bytes) ? null : bytes
    const dataType = DATA_TYPES[type]
    if (type === PAGE_TYPE.UNMEASURED) {
      const index = areas++
      file.add("PARAMETER_AREA", bodyOf([PAGE_SIZE, 8], [index, 4], [0, 4]), data, 12)
      for (const parameter of parameters.get(gpa) ?? [])
        file.add(parameter.name, bodyOf([index, 4], [parameter.offset, 4]))
      file.add("PARAMETER_INSERT", bodyOf([gpa, 8], [MASK, 4], [index, 4]))
    } else if (type === PAGE_TYPE.VMSA) {
      file.add("VP_CONTEXT", bodyOf([gpa, 8], [MASK, 4], [0, 4], [vmsas++, 2], [0, 2]), bytes, 12)
    } else if (dataType !== undefined) {
      file.add("PAGE_DATA", bodyOf([gpa, 8], [MASK, 4], [0, 4], [0, 4], [dataType, 2], [0, 2]), data, 12)
    } else throw new FirmwareError(name, `page type ${type} at gPA 0x${gpa.toString(16)}, expected one that IGVM has`)
  }
  if (idBlock !== undefined) file.add("SNP_ID_BLOCK", writeIdBlock(idBlock, MASK))
  return file.bytes()
}
