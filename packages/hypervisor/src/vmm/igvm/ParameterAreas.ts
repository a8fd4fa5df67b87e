import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { FirmwareError } from "../FirmwareError.ts"
import { type IgvmFile, type IgvmHeader, igvmError } from "./IgvmFile.ts"
import { type IgvmEnvironment, parameterBytes } from "./Parameters.ts"

const AREA = { size: 0, index: 8 } as const
const PARAMETER = { index: 0, offset: 4 } as const
const INSERT = { index: 12 } as const

/** More than any guest's parameters need. */
const AREA_MAX = 1 << 24

/** The parameter areas of a file: what stands in them, until they are inserted. @spec IGVM PARAMETER_AREA */
export class ParameterAreas {
  readonly #file: IgvmFile
  readonly #environment: IgvmEnvironment | undefined
  /** Null once it has been inserted. */
  readonly #areas = new Map<number, Uint8Array | null>()

  /** Without an environment, parameters are looked at but not written: nothing of them is measured. */
  constructor(file: IgvmFile, environment: IgvmEnvironment | undefined) {
    this.#file = file
    this.#environment = environment
  }

  #fail(header: IgvmHeader, offset: number, size: number, why: string): FirmwareError {
    return igvmError(this.#file, header, offset, size, why)
  }

  /** PARAMETER_AREA. `contentsOf` reads what the file gives it to begin with; null: zeros. */
  add(header: IgvmHeader, contentsOf: (size: number) => Uint8Array | null): void {
    const size = header.body.getBigUint64(AREA.size, true)
    const index = header.body.getUint32(AREA.index, true)
    if (size === 0n || size % BigInt(PAGE_SIZE) !== 0n || size > BigInt(AREA_MAX)) {
      const expected = `a multiple of ${PAGE_SIZE} up to ${AREA_MAX}`
      throw this.#fail(header, AREA.size, 8, `parameter area of ${size} bytes, expected ${expected}`)
    }
    if (this.#areas.has(index)) {
      throw this.#fail(header, AREA.index, 4, `parameter area ${index} is there twice, expected once`)
    }
    const area = new Uint8Array(Number(size))
    area.set(contentsOf(area.length) ?? [])
    this.#areas.set(index, area)
  }

  #area(header: IgvmHeader, offset: number): Uint8Array {
    const index = header.body.getUint32(offset, true)
    const area = this.#areas.get(index)
    if (area === undefined) {
      throw this.#fail(header, offset, 4, `parameter area ${index} is not there, expected one before`)
    }
    if (area === null) {
      throw this.#fail(header, offset, 4, `parameter area ${index} has been inserted, expected one that has not`)
    }
    return area
  }

  /** A parameter: the VMM's answer goes into its area. @spec IGVM PARAMETER */
  write(header: IgvmHeader): void {
    const { kind, body } = header
    const area = this.#area(header, PARAMETER.index)
    const at = body.getUint32(PARAMETER.offset, true)
    const bytes = this.#environment === undefined ? new Uint8Array(1) : parameterBytes(kind.name, this.#environment)
    if (bytes === null) {
      if (header.isOptional) return
      throw this.#fail(header, -8, 4, `a parameter that this VMM has nothing for, expected an optional header`)
    }
    if (at + bytes.length > area.length) {
      const why = `${bytes.length} bytes at offset ${at} of the parameter area, expected them within ${area.length}`
      throw this.#fail(header, PARAMETER.offset, 4, why)
    }
    if (this.#environment !== undefined) area.set(bytes, at)
  }

  /** PARAMETER_INSERT: what stands in the area now; it can be used no more. */
  take(header: IgvmHeader): Uint8Array {
    const area = this.#area(header, INSERT.index)
    this.#areas.set(header.body.getUint32(INSERT.index, true), null)
    return area
  }
}
