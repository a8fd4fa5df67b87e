import { type ClientJob, SVSM_RESULT } from "@vmpl-lab/guest"
import { RandomStream } from "@vmpl-lab/sim"
import { CALL_REGISTERS, type CallRegister, type SvsmParameters } from "@vmpl-lab/svsm"
import type { BufferField, Service, ServiceCall, StructBuffer } from "./Define.ts"
import { encodeStruct } from "./Struct.ts"

const PAGE = 4096
type Writes = Extract<ClientJob, { kind: "call" }>["writes"]
type Registers = { [R in CallRegister]: number }

const sizeOf = ({ size }: BufferField | StructBuffer, example: Uint8Array | undefined): number => {
  if (typeof size === "number") return size
  return Math.max(size.min, example?.length ?? size.min)
}

/** An example's bytes; undefined where there is none. */
const bytesOf = (field: BufferField | StructBuffer, example: unknown): Uint8Array | undefined => {
  if (field.kind === "struct") return encodeStruct(field.fields, (example ?? {}) as { readonly [name: string]: number })
  return example instanceof Uint8Array ? example : undefined
}

/** Most bytes that the buffers of one call may have: what a client of this platform has for them. */
export const BUFFERS_MAX = 2 * PAGE

/**
 * The call with its example's arguments, the buffers one behind the other from the start of a page each where they must
 * be. Null where they do not fit.
 */
export const exampleJob = (service: Service, call: ServiceCall, from: number): ClientJob | null => {
  const registers: Registers = { rcx: 0, rdx: 0, r8: 0 }
  const writes: Array<{ readonly gpa: number; readonly bytes: Uint8Array }> = []
  let next = from
  for (const [name, field] of Object.entries(call.request)) {
    const example = call.example?.[name]
    if (field.kind !== "buffer" && field.kind !== "struct") {
      if (example !== undefined) registers[field.register] = Number(example)
      continue
    }
    const given = bytesOf(field, example)
    const size = sizeOf(field, given)
    next = Math.ceil(next / field.align) * field.align
    registers[field.register] = next
    if (typeof field.size !== "number") registers[field.size.register] = size
    const bytes = new Uint8Array(size)
    if (given !== undefined) bytes.set(given.subarray(0, size))
    for (let at = 0; at < size; ) {
      const length = Math.min(size - at, PAGE - ((next + at) % PAGE))
      writes.push({ gpa: next + at, bytes: bytes.subarray(at, at + length) })
      at += length
    }
    next += size
  }
  if (next - from > BUFFERS_MAX) return null
  return { kind: "call", protocol: service.protocol, call: call.call, registers, writes, reads: [] }
}

/** Random calls, most of them hostile: equal seeds give equal ones. */
export class Fuzzer {
  readonly #stream: RandomStream
  readonly #service: Service
  readonly #addresses: ReadonlyArray<number>
  readonly #buffer: number

  constructor(service: Service, seed: number, parameters: SvsmParameters, buffers: ReadonlyArray<number>) {
    const { svsm, ramSize, firmware, secretsGpa, callingAreaGpa, highRam } = parameters
    this.#stream = new RandomStream(seed, `fuzz:${service.name}`)
    this.#service = service
    this.#buffer = buffers[0]!
    const svsmPages = Array.from({ length: 8 }, (_, page) => svsm.gpa + page * PAGE)
    const edges = [0, ramSize, svsm.gpa + svsm.size, firmware.gpa, firmware.gpa + firmware.size, highRam.gpa]
    const exotic = [2 ** 32, 2 ** 51, 2 ** 52, Number.MAX_SAFE_INTEGER]
    // The pages around the client's own hold its VMSA's neighbours, its calling area and its GHCB, which is shared.
    const around = Array.from({ length: 9 }, (_, page) => buffers[0]! + (page - 6) * PAGE)
    this.#addresses = [...buffers, ...around, ...svsmPages, ...edges, ...exotic, secretsGpa, callingAreaGpa]
  }

  #pick<A>(list: ReadonlyArray<A>): A {
    return list[this.#stream.int(0, list.length - 1)]!
  }

  #value(): number {
    const base = this.#stream.int(0, 3) === 0 ? this.#stream.int(0, 0xffff) : this.#pick(this.#addresses)
    const offset = this.#pick([0, 0, 0, 1, 7, 8, 0xff8, 0xfff, -1, -8])
    return Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, base + offset))
  }

  /** Half of them are an example with one register changed, so that they get past the first checks. */
  next(): ClientJob {
    const chosen = this.#pick(Object.values(this.#service.calls))
    const example = exampleJob(this.#service, chosen, this.#buffer)
    const call = this.#stream.int(0, 9) === 0 ? this.#stream.int(0, 0xffff_ffff) : chosen.call
    const random = Object.fromEntries(CALL_REGISTERS.map((register) => [register, this.#value()])) as Registers
    const changed = this.#pick(CALL_REGISTERS)
    const isNear = this.#stream.int(0, 1) === 0 && example?.kind === "call"
    const registers = isNear ? { ...example.registers, [changed]: random[changed] } : random
    const writes = isNear ? this.#changed(example.writes) : []
    return { kind: "call", protocol: this.#service.protocol, call, registers, writes, reads: [] }
  }

  /** What the example has in memory, with one byte changed now and then. */
  #changed(writes: Writes): Writes {
    return writes.map(({ gpa, bytes }) => {
      if (this.#stream.int(0, 1) === 0) return { gpa, bytes }
      const copy = bytes.slice()
      copy[this.#stream.int(0, copy.length - 1)] = this.#stream.int(0, 0xff)
      return { gpa, bytes: copy }
    })
  }
}

const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(SVSM_RESULT).map(([name, code]) => [code, name]))

/** `SUCCESS`, `INVALID_ADDRESS`, `protocol failure 3`, ... */
export const resultName = (result: number): string => {
  const name = NAMES.get(result)
  if (name !== undefined && name !== "FAIL_BASE") return name
  return result >= SVSM_RESULT.FAIL_BASE && result <= 0xffff_ffff
    ? `protocol failure ${result - SVSM_RESULT.FAIL_BASE}`
    : `0x${result.toString(16)}`
}
