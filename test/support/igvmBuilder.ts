import { crc32 } from "node:zlib"

/** Makes IGVM files by the format, independently of what reads them. */
export class IgvmBuilder {
  readonly #headers: Array<Buffer> = []
  readonly #data: Array<Buffer> = []
  version = 1
  architecture = 0
  pageSize = 4096

  /** A variable header of any type and body. */
  header(type: number, body: Uint8Array): this {
    const padded = Buffer.alloc(8 + Math.ceil(body.length / 8) * 8)
    padded.writeUInt32LE(type >>> 0, 0)
    padded.writeUInt32LE(body.length, 4)
    padded.set(body, 8)
    this.#headers.push(padded)
    return this
  }

  platform(mask = 1, type = 2, version = 1): this {
    const body = Buffer.alloc(16)
    body.writeUInt32LE(mask, 0)
    body[5] = type
    body.writeUInt16LE(version, 6)
    return this.header(1, body)
  }

  policy(policy: bigint, mask = 1): this {
    const body = Buffer.alloc(16)
    body.writeBigUInt64LE(policy)
    body.writeUInt32LE(mask, 8)
    return this.header(0x101, body)
  }

  /** File data; what headers write as its offset, to be found when the file is made. */
  #store(bytes: Uint8Array | null): number {
    if (bytes === null) return 0
    this.#data.push(Buffer.from(bytes))
    return this.#data.length
  }

  page(gpa: number, contents: Uint8Array | null, { type = 0, flags = 0, mask = 1 } = {}): this {
    const body = Buffer.alloc(24)
    body.writeBigUInt64LE(BigInt(gpa))
    body.writeUInt32LE(mask, 8)
    body.writeUInt32LE(this.#store(contents), 12)
    body.writeUInt32LE(flags, 16)
    body.writeUInt16LE(type, 20)
    return this.header(0x302, body)
  }

  area(index: number, size: number, contents: Uint8Array | null = null): this {
    const body = Buffer.alloc(16)
    body.writeBigUInt64LE(BigInt(size))
    body.writeUInt32LE(index, 8)
    body.writeUInt32LE(this.#store(contents), 12)
    return this.header(0x301, body)
  }

  /** One of the parameters that the VMM writes into an area. */
  parameter(type: number, index: number, offset: number): this {
    const body = Buffer.alloc(8)
    body.writeUInt32LE(index)
    body.writeUInt32LE(offset, 4)
    return this.header(type, body)
  }

  required(gpa: number, size: number, flags = 0, mask = 1): this {
    const body = Buffer.alloc(24)
    body.writeBigUInt64LE(BigInt(gpa))
    for (const [i, word] of [mask, size, flags].entries()) body.writeUInt32LE(word, 8 + 4 * i)
    return this.header(0x305, body)
  }

  errors(gpa: number, size: number, mask = 1): this {
    const body = Buffer.alloc(16)
    body.writeBigUInt64LE(BigInt(gpa))
    body.writeUInt32LE(mask, 8)
    body.writeUInt32LE(size, 12)
    return this.header(0x30d, body)
  }

  insert(gpa: number, index: number, mask = 1): this {
    const body = Buffer.alloc(16)
    body.writeBigUInt64LE(BigInt(gpa))
    body.writeUInt32LE(mask, 8)
    body.writeUInt32LE(index, 12)
    return this.header(0x303, body)
  }

  vmsa(contents: Uint8Array | null, { gpa = 0xffff_ffff_f000, mask = 1, index = 0 } = {}): this {
    const body = Buffer.alloc(20)
    body.writeBigUInt64LE(BigInt(gpa))
    body.writeUInt32LE(mask, 8)
    body.writeUInt32LE(this.#store(contents), 12)
    body.writeUInt16LE(index, 16)
    return this.header(0x304, body)
  }

  /** SNP_ID_BLOCK for a digest; keys and signatures are AMD's forms, of which this one has the significant parts. */
  idBlock(digest: Uint8Array, parts: { readonly [offset: number]: Uint8Array } = {}): this {
    const body = Buffer.alloc(0x2b8)
    body.writeUInt32LE(1, 0)
    body.set(digest, 8)
    body.writeUInt32LE(1, 0x58)
    body.writeUInt32LE(1, 0x60)
    for (const [offset, bytes] of Object.entries(parts)) body.set(bytes, Number(offset))
    return this.header(0x30b, body)
  }

  build(): Buffer {
    const fixedSize = this.version === 2 ? 32 : 24
    const headers = Buffer.concat(this.#headers)
    let end = fixedSize + headers.length
    const offsets = this.#data.map(({ length }) => {
      end += length
      return end - length
    })
    for (let at = 0; at < headers.length; ) {
      const type = headers.readUInt32LE(at) & 0x7fff_ffff
      const index = type === 0x301 || type === 0x302 || type === 0x304 ? headers.readUInt32LE(at + 8 + 12) : 0
      const offset = offsets[index - 1]
      if (offset !== undefined) headers.writeUInt32LE(offset, at + 8 + 12)
      at += 8 + Math.ceil(headers.readUInt32LE(at + 4) / 8) * 8
    }
    const file = Buffer.concat([Buffer.alloc(fixedSize), headers, ...this.#data])
    file.write("IGVM", 0, "latin1")
    file.writeUInt32LE(this.version, 4)
    file.writeUInt32LE(fixedSize, 8)
    file.writeUInt32LE(headers.length, 12)
    file.writeUInt32LE(file.length, 16)
    if (this.version === 2) {
      file.writeUInt32LE(this.architecture, 24)
      file.writeUInt32LE(this.pageSize, 28)
    }
    return sealIgvm(file)
  }
}

/** Puts the checksum right after a change to the headers. */
export const sealIgvm = (file: Buffer): Buffer => {
  file.writeUInt32LE(0, 20)
  const end = Math.min(file.length, file.readUInt32LE(8) + file.readUInt32LE(12))
  file.writeUInt32LE(crc32(file.subarray(0, end)), 20)
  return file
}
