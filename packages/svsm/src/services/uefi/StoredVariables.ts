import { EFI_VARIABLE, type Variable, type VariableName } from "@vmpl-lab/guest"

/** A variable as it is kept. */
export interface StoredVariable extends Variable {
  /** EFI_TIME of the last authenticated write; null for what is written without. */
  readonly timestamp: Uint8Array | null
  /** Who may write a variable that is authenticated but not of secure boot; null elsewhere. */
  readonly signer: Uint8Array | null
}

/** What a request has made the store do, for its time: reset by whoever charges for it. */
export interface StoreSteps {
  /** Variables whose name was compared. */
  compared: number
  /** Bytes of names and data that were copied. */
  copied: number
  /** Signatures that were verified, good or bad. */
  verified: number
}

/**
 * Sizes as in OVMF of 4 MiB. Source: EDK2, OvmfPkg/OvmfPkgX64.dsc (PcdMaxVariableSize, PcdVariableStoreSize) and
 * MdeModulePkg/Include/Guid/VariableFormat.h (AUTHENTICATED_VARIABLE_HEADER, VARIABLE_STORE_HEADER, HEADER_ALIGNMENT)
 */
export const VARIABLE_LIMITS = {
  /** A variable with its header and name. */
  VARIABLE: 0x8400,
  /** Each of the two stores with its header. */
  STORE: 0x4_0000,
  STORE_HEADER: 28,
  HEADER: 60,
  ALIGN: 4
} as const

/** Bytes of a name with its end. */
export const nameSize = ({ name }: VariableName): number => 2 * name.length + 2

/** Bytes that a variable takes in its store. */
export const storedSize = (variable: Variable): number => {
  const { HEADER, ALIGN } = VARIABLE_LIMITS
  return Math.ceil((HEADER + nameSize(variable) + variable.data.length) / ALIGN) * ALIGN
}

const isSame = (a: VariableName, b: VariableName): boolean => a.name === b.name && a.guid === b.guid

/** What all stores of variables have in common: two lists in the order of writing, volatile variables first. */
export class StoredVariables {
  readonly #volatile: Array<StoredVariable> = []
  readonly #nonVolatile: Array<StoredVariable> = []
  readonly steps: StoreSteps = { compared: 0, copied: 0, verified: 0 }

  /** Volatile ones, then the others. */
  get all(): ReadonlyArray<StoredVariable> {
    return [...this.#volatile, ...this.#nonVolatile]
  }

  /** Looks through the variables one after the other, as the real ones do. */
  find(name: VariableName): StoredVariable | undefined {
    for (const list of [this.#volatile, this.#nonVolatile]) {
      const index = list.findIndex((variable) => isSame(variable, name))
      this.steps.compared += index < 0 ? list.length : index + 1
      if (index >= 0) return list[index]
    }
    return undefined
  }

  /** Adds a variable behind the others, in place of one of its name. */
  put(variable: StoredVariable): void {
    this.remove(variable)
    this.#listOf(variable.attributes).push(variable)
    this.steps.copied += nameSize(variable) + variable.data.length
  }

  remove(name: VariableName): void {
    for (const list of [this.#volatile, this.#nonVolatile]) {
      const index = list.findIndex((variable) => isSame(variable, name))
      if (index >= 0) list.splice(index, 1)
    }
  }

  /** Bytes that are left in the store of these attributes. */
  remaining(attributes: number): number {
    const used = this.#listOf(attributes).reduce((sum, variable) => sum + storedSize(variable), 0)
    return VARIABLE_LIMITS.STORE - VARIABLE_LIMITS.STORE_HEADER - used
  }

  #listOf(attributes: number): Array<StoredVariable> {
    return (attributes & EFI_VARIABLE.NON_VOLATILE) === 0 ? this.#volatile : this.#nonVolatile
  }
}
