import { crc32 } from "node:zlib"
import { FirmwareError, hex } from "../FirmwareError.ts"
import { HEADER_KINDS, type HeaderKind, IGVM_OPTIONAL } from "./Headers.ts"

/** Fixed header: {"IGVM", version, offset and size of the variable headers, file size, CRC32}; version 2 has two more. */
const FIXED = { magic: 0, version: 4, offset: 8, size: 12, fileSize: 16, checksum: 20, architecture: 24, pageSize: 28 }
const FIXED_SIZE: { readonly [version: number]: number } = { 1: 24, 2: 32 }
const MAGIC = 0x4d56_4749
const ALIGNMENT = 8
const PAGE_SIZE = 4096

/** Largest file that is read: more than any guest image has. */
export const IGVM_SIZE_MAX = 256 * 1024 * 1024

/** SUPPORTED_PLATFORM: which platform, its version, and the one bit by which the others name it. */
const PLATFORM = { mask: 0, highestVtl: 4, type: 5, version: 6 } as const
const SEV_SNP = 2
const SEV_SNP_VERSION = 1

/** Highest type of each section, in file order. @spec IGVM "variable header ranges" */
const SECTIONS = [0x100, 0x200, 0x400] as const

/** One variable header that counts for SNP. */
export interface IgvmHeader {
  readonly kind: HeaderKind
  /** Its place among all variable headers of the file, from 0. */
  readonly index: number
  /** Its loader may leave it out where it cannot do what it asks. */
  readonly isOptional: boolean
  /** Where its body begins in the file. */
  readonly at: number
  readonly body: DataView
}

/** A file as read: its headers for SNP in their order. */
export interface IgvmFile {
  readonly name: string
  readonly bytes: Uint8Array
  readonly headers: ReadonlyArray<IgvmHeader>
}

type Fail = (at: number, size: number, why: string) => FirmwareError

const failIn =
  (name: string): Fail =>
  (at, size, why) =>
    new FirmwareError(name, `bytes ${hex(at)} to ${hex(at + size - 1)}: ${why}`)

/** Where the variable headers are. */
const checkFixed = (bytes: Uint8Array, name: string, fail: Fail): readonly [start: number, end: number] => {
  if (bytes.length < FIXED_SIZE[1]!) {
    throw new FirmwareError(name, `size is ${bytes.length}, expected an IGVM file of at least ${FIXED_SIZE[1]} bytes`)
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const word = (at: number): number => view.getUint32(at, true)
  if (word(FIXED.magic) !== MAGIC) throw fail(0, 4, `magic is ${hex(word(0))}, expected "IGVM", ${hex(MAGIC)}`)
  const version = word(FIXED.version)
  const fixed = FIXED_SIZE[version]
  if (fixed === undefined) throw fail(FIXED.version, 4, `format version is ${version}, expected 1 or 2`)
  if (bytes.length < fixed) throw new FirmwareError(name, `size is ${bytes.length}, expected at least ${fixed} bytes`)
  if (version === 2 && word(FIXED.architecture) !== 0) {
    throw fail(FIXED.architecture, 4, `architecture is ${word(FIXED.architecture)}, expected 0, x64`)
  }
  if (version === 2 && word(FIXED.pageSize) !== PAGE_SIZE) {
    throw fail(FIXED.pageSize, 4, `page size is ${word(FIXED.pageSize)}, expected ${PAGE_SIZE}`)
  }
  if (word(FIXED.fileSize) !== bytes.length) {
    throw fail(FIXED.fileSize, 4, `file size is ${word(FIXED.fileSize)}, expected ${bytes.length} as the file has`)
  }
  const [start, size] = [word(FIXED.offset), word(FIXED.size)]
  if (start < fixed || start % ALIGNMENT !== 0 || start > bytes.length) {
    throw fail(FIXED.offset, 4, `variable headers at ${hex(start)}, expected a multiple of 8 from ${hex(fixed)} on`)
  }
  if (size === 0 || size % ALIGNMENT !== 0 || start + size > bytes.length) {
    throw fail(FIXED.size, 4, `variable headers have ${size} bytes, expected a multiple of 8 within the file`)
  }
  const cleared = Uint8Array.from(bytes.subarray(0, fixed))
  cleared.fill(0, FIXED.checksum, FIXED.checksum + 4)
  const expected = crc32(bytes.subarray(start, start + size), crc32(cleared))
  if (word(FIXED.checksum) !== expected) {
    throw fail(FIXED.checksum, 4, `checksum is ${hex(word(FIXED.checksum))}, expected ${hex(expected)}`)
  }
  return [start, start + size]
}

/** Whether a file begins as an IGVM file does. */
export const isIgvm = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(FIXED.magic, true) === MAGIC

/** Every header that is known, whatever platform it is for. */
const readHeaders = (bytes: Uint8Array, [start, end]: readonly [number, number], fail: Fail): Array<IgvmHeader> => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const headers: Array<IgvmHeader> = []
  let section = 0
  for (let at = start, index = 0; at < end; index++) {
    const type = view.getUint32(at, true)
    const length = view.getUint32(at + 4, true)
    const next = at + 8 + Math.ceil(length / ALIGNMENT) * ALIGNMENT
    if (next > end) throw fail(at + 4, 4, `length is ${hex(length)}, expected at most ${hex(end - at - 8)}`)
    const plain = (type & ~IGVM_OPTIONAL) >>> 0
    const kind = HEADER_KINDS.get(plain)
    if (kind !== undefined) {
      const own = SECTIONS.findIndex((last) => plain <= last)
      if (own < section)
        throw fail(at, 4, `${kind.name} comes too late, expected platforms, then initialization, then directives`)
      section = own
      if (length !== kind.size) throw fail(at + 4, 4, `${kind.name} has ${length} bytes, expected ${kind.size}`)
      const body = new DataView(bytes.buffer, bytes.byteOffset + at + 8, length)
      headers.push({ kind, index, isOptional: type !== plain, at: at + 8, body })
    } else if (type === plain)
      throw fail(at, 4, `header type ${hex(type)} is unknown, expected a known or an optional one`)
    at = next
  }
  return headers
}

/** The bit by which headers name SEV-SNP. */
const snpMask = (headers: ReadonlyArray<IgvmHeader>, name: string, fail: Fail): number => {
  const platforms = headers.filter(({ kind }) => kind.name === "SUPPORTED_PLATFORM")
  const found = platforms.filter(({ body }) => body.getUint8(PLATFORM.type) === SEV_SNP)
  const [platform] = found
  if (platform === undefined || found.length > 1) {
    throw new FirmwareError(
      name,
      `${found.length} platforms are SEV-SNP, expected one SUPPORTED_PLATFORM header of type 2`
    )
  }
  const { at, body } = platform
  const mask = body.getUint32(PLATFORM.mask, true)
  if (mask === 0 || (mask & (mask - 1)) !== 0) throw fail(at, 4, `mask of SEV-SNP is ${hex(mask)}, expected one bit`)
  const version = body.getUint16(PLATFORM.version, true)
  if (version !== SEV_SNP_VERSION) throw fail(at + PLATFORM.version, 2, `platform version is ${version}, expected 1`)
  return mask
}

const checkHeader = (header: IgvmHeader, name: string): void => {
  const { kind, body } = header
  if (kind.notForSnp) {
    throw headerError(name, header, -8, 4, "is for SEV-SNP too, expected none: its launch has no such step")
  }
  for (const [start, end] of kind.reserved ?? []) {
    for (let i = start; i < end; i++) {
      if (body.getUint8(i) !== 0) {
        throw headerError(name, header, start, end - start, "reserved bytes are not zero, expected zeros")
      }
    }
  }
}

/**
 * Reads an IGVM file for SEV-SNP. Every byte is taken as hostile: whatever is wrong, or not for SNP though it names it,
 * throws FirmwareError, and nothing else is thrown. `name` is used in messages only.
 * @spec IGVM "file structure"
 */
export const parseIgvm = (bytes: Uint8Array, name: string): IgvmFile => {
  const fail = failIn(name)
  const range = checkFixed(bytes, name, fail)
  const all = readHeaders(bytes, range, fail)
  const mask = snpMask(all, name, fail)
  const headers = all.filter(
    ({ kind, body }) =>
      kind.name !== "SUPPORTED_PLATFORM" && (kind.mask === null || (body.getUint32(kind.mask, true) & mask) !== 0)
  )
  for (const header of headers) checkHeader(header, name)
  return { name, bytes, headers }
}

/** An error in a header, at `offset` in its body: which header of the file it is, its type, its bytes, and why. */
const headerError = (name: string, header: IgvmHeader, offset: number, size: number, why: string): FirmwareError => {
  const from = header.at + offset
  const where = `header ${header.index}, ${header.kind.name}, bytes ${hex(from)} to ${hex(from + size - 1)}`
  return new FirmwareError(name, `${where}: ${why}`)
}

/** An error in a header of a file. */
export const igvmError = (
  { name }: IgvmFile,
  header: IgvmHeader,
  offset: number,
  size: number,
  why: string
): FirmwareError => headerError(name, header, offset, size, why)
