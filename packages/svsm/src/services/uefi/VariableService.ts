import { EFI_STATUS, EFI_VARIABLE, type Variable, type VariableInfo, type VariableName } from "@vmpl-lab/guest"
import { authenticatedWrite, isLater, type SignatureVerifier, verdictOn } from "./Authenticated.ts"
import {
  DATABASE_ATTRIBUTES,
  type EnrolledKeys,
  enroll,
  isDatabase,
  isPlatformKey,
  isReadOnly,
  isSetupMode,
  needsPresence,
  updateMode
} from "./SecureBoot.ts"
import { newSignatures } from "./SignatureList.ts"
import { nameSize, type StoredVariable, StoredVariables, storedSize, VARIABLE_LIMITS } from "./StoredVariables.ts"
import { VariablePolicies } from "./VariablePolicies.ts"
import type { VariableRules } from "./VariableRules.ts"

const {
  NON_VOLATILE,
  BOOTSERVICE_ACCESS,
  RUNTIME_ACCESS,
  HARDWARE_ERROR_RECORD,
  AUTHENTICATED_WRITE_ACCESS,
  TIME_BASED_AUTHENTICATED_WRITE_ACCESS,
  APPEND_WRITE
} = EFI_VARIABLE
const ACCESS = BOOTSERVICE_ACCESS | RUNTIME_ACCESS
const CURRENT = NON_VOLATILE | ACCESS | HARDWARE_ERROR_RECORD | TIME_BASED_AUTHENTICATED_WRITE_ACCESS | APPEND_WRITE
const {
  SUCCESS,
  INVALID_PARAMETER,
  UNSUPPORTED,
  WRITE_PROTECTED,
  OUT_OF_RESOURCES,
  NOT_FOUND,
  ACCESS_DENIED,
  SECURITY_VIOLATION
} = EFI_STATUS

/** Limits of a variable that VAR_CHECK_VARIABLE_PROPERTY sets; attributes of 0 leave them open. */
export interface VariableProperty {
  readonly isReadOnly: boolean
  readonly attributes: number
  readonly minSize: number
  readonly maxSize: number
}

/** Variables with properties: an assumption, EDK2's are bounded by its memory. */
export const PROPERTIES_MAX = 1024

/** What a variable service is made with. */
export interface VariableServiceOptions {
  readonly rules: VariableRules
  /** Null verifies nothing, so that no signature is ever good. */
  readonly verifier: SignatureVerifier | null
  readonly enrolled: EnrolledKeys
}

/**
 * The UEFI variable services over one store, which is forgotten with the SVSM. Source: UEFI 2.10, 8.2, and EDK2's
 * MdeModulePkg/Universal/Variable/RuntimeDxe for what it leaves open.
 */
export class VariableService {
  readonly rules: VariableRules
  readonly policies = new VariablePolicies()
  readonly variables = new StoredVariables()
  readonly #verifier: SignatureVerifier | null
  readonly #properties = new Map<string, VariableProperty>()
  #endOfDxe = false
  #atRuntime = false

  constructor({ rules, verifier, enrolled }: VariableServiceOptions) {
    this.rules = rules
    this.#verifier = verifier
    enroll(this.variables, enrolled, rules.tellsShimNotToReboot)
    this.variables.steps.copied = 0
    this.variables.steps.compared = 0
  }

  get isSecureBoot(): boolean {
    return !isSetupMode(this.variables)
  }

  /** Guests may change db and dbx, with a signature of KEK's or PK's. */
  get takesDatabaseUpdates(): boolean {
    return this.isSecureBoot && this.#verifier !== null && this.rules.verifiesInUserMode
  }

  /** The variable, or why it is not shown: a status. */
  get(name: VariableName): StoredVariable | number {
    const variable = name.name === "" ? undefined : this.variables.find(name)
    if (variable === undefined) return NOT_FOUND
    return this.#isVisible(variable) ? variable : this.rules.hiddenRead
  }

  /** The variable behind one, or behind none the first; a status where there is no next, or no such one. */
  next(name: VariableName): StoredVariable | number {
    const { all } = this.variables
    let from = 0
    if (name.name !== "") {
      const known = this.variables.find(name)
      if (known === undefined || !this.#isVisible(known)) return INVALID_PARAMETER
      from = all.indexOf(known) + 1
    }
    return all.slice(from).find((variable) => this.#isVisible(variable)) ?? NOT_FOUND
  }

  /** Creates, changes or deletes a variable. @returns a status */
  set(asked: Variable): number {
    const wrong = attributesStatus(asked)
    if (wrong !== SUCCESS) return wrong
    const isAuthenticated = (asked.attributes & TIME_BASED_AUTHENTICATED_WRITE_ACCESS) !== 0
    const write = isAuthenticated ? authenticatedWrite(asked.data) : null
    if (isAuthenticated && write === null) return SECURITY_VIOLATION
    const variable: Variable = { ...asked, data: write?.data ?? asked.data }
    if (nameSize(variable) + variable.data.length > VARIABLE_LIMITS.VARIABLE - VARIABLE_LIMITS.HEADER) {
      return INVALID_PARAMETER
    }
    const status = this.#checks(variable)
    if (status !== SUCCESS) return status
    const old = this.variables.find(variable)
    if (isDatabase(variable) && (asked.attributes & ~APPEND_WRITE) !== DATABASE_ATTRIBUTES) return INVALID_PARAMETER
    if (write === null) {
      const isAnothers = old !== undefined && (old.attributes & TIME_BASED_AUTHENTICATED_WRITE_ACCESS) !== 0
      return isAnothers ? WRITE_PROTECTED : this.#update(variable, old, null, null)
    }
    const verdict = verdictOn(this.variables, this.#verifier, variable, write, this.rules.verifiesInUserMode)
    if (verdict.status !== SUCCESS) return verdict.status
    const updated = this.#update(variable, old, write.timestamp, verdict.signer)
    if (updated === SUCCESS && isPlatformKey(variable)) updateMode(this.variables, this.#atRuntime)
    return updated
  }

  /** QueryVariableInfo: room for variables of these attributes, or a status. */
  info(attributes: number): VariableInfo | number {
    if (attributes === 0) return INVALID_PARAMETER
    if ((attributes & AUTHENTICATED_WRITE_ACCESS) !== 0 || (attributes & CURRENT) === 0) return UNSUPPORTED
    if ((attributes & CURRENT) === NON_VOLATILE || (attributes & ACCESS) === RUNTIME_ACCESS) return INVALID_PARAMETER
    if (this.#atRuntime && (attributes & RUNTIME_ACCESS) === 0) return INVALID_PARAMETER
    if ((attributes & HARDWARE_ERROR_RECORD) !== 0) {
      return (attributes & NON_VOLATILE) === 0 ? INVALID_PARAMETER : UNSUPPORTED
    }
    const { STORE, STORE_HEADER, VARIABLE, HEADER } = VARIABLE_LIMITS
    const remainingStorage = this.variables.remaining(attributes)
    const maxVariable = Math.max(0, Math.min(VARIABLE - HEADER, remainingStorage - HEADER))
    return { maxStorage: STORE - STORE_HEADER, remainingStorage, maxVariable }
  }

  /** The end of DXE, by its event or by ReadyToBoot: from now on policies and properties hold. */
  endDxe(): void {
    this.#endOfDxe = true
    if (this.rules.locksPoliciesWithDxe) this.policies.lock()
  }

  /** ReadyToBoot. @returns a status */
  readyToBoot(): number {
    if (this.#atRuntime) return UNSUPPORTED
    this.endDxe()
    return SUCCESS
  }

  exitBootServices(): void {
    this.#atRuntime = true
  }

  /** LockVariable, as a policy. @param entry of a policy that locks now. @returns a status */
  lock(name: VariableName, entry: Uint8Array): number {
    if (this.#endOfDxe) return ACCESS_DENIED
    if (name.name === "") return INVALID_PARAMETER
    const status = this.policies.register(entry)
    if (status !== EFI_STATUS.ALREADY_STARTED) return status
    return this.#policyStatus({ ...name, attributes: 0, data: NO_BYTES }) === WRITE_PROTECTED ? SUCCESS : ACCESS_DENIED
  }

  /** Sets what a variable may be from the end of DXE on. @returns a status */
  setProperty(name: VariableName, property: VariableProperty): number {
    if (this.#endOfDxe) return ACCESS_DENIED
    if (name.name === "") return INVALID_PARAMETER
    const key = keyOf(name)
    if (!this.#properties.has(key) && this.#properties.size >= PROPERTIES_MAX) return OUT_OF_RESOURCES
    this.#properties.set(key, property)
    return SUCCESS
  }

  /** The property that has been set, or a status. */
  property(name: VariableName): VariableProperty | number {
    return name.name === "" ? INVALID_PARAMETER : (this.#properties.get(keyOf(name)) ?? NOT_FOUND)
  }

  #isVisible({ attributes }: StoredVariable): boolean {
    return !this.#atRuntime || (attributes & RUNTIME_ACCESS) !== 0
  }

  /** Read-only variables, properties, policies, and the attributes of the one that is there. @returns a status */
  #checks(variable: Variable): number {
    if (isReadOnly(variable)) return WRITE_PROTECTED
    if (this.#endOfDxe) {
      const status = this.#propertyStatus(variable)
      if (status !== SUCCESS) return status
      const policy = this.#policyStatus(variable)
      if (policy !== SUCCESS) return policy
    }
    const old = this.variables.find(variable)
    if (old !== undefined) {
      if (!this.#isVisible(old)) return this.rules.hiddenWrite
      const { attributes } = variable
      if (attributes !== 0 && (attributes & ~APPEND_WRITE) !== old.attributes) return INVALID_PARAMETER
    }
    return needsPresence(variable) ? SECURITY_VIOLATION : SUCCESS
  }

  #propertyStatus(variable: Variable): number {
    const property = this.#properties.get(keyOf(variable))
    if (property === undefined) return SUCCESS
    if (property.isReadOnly) return WRITE_PROTECTED
    if (isDeletion(variable) || variable.attributes === 0) return SUCCESS
    const { attributes, minSize, maxSize } = property
    if (attributes !== 0 && (variable.attributes & ~APPEND_WRITE) !== attributes) return INVALID_PARAMETER
    const { length } = variable.data
    return length !== 0 && (length < minSize || length > maxSize) ? INVALID_PARAMETER : SUCCESS
  }

  #policyStatus(variable: Variable): number {
    const { name, guid, attributes, data } = variable
    const value = (other: VariableName): Uint8Array | undefined => {
      const found = this.get(other)
      return typeof found === "number" ? undefined : found.data
    }
    const isDeletion = data.length === 0 && (attributes & APPEND_WRITE) === 0
    return this.policies.check({ name, guid, attributes, size: data.length, isDeletion, value })
  }

  /** Writes what has passed the checks. @returns a status */
  #update(
    variable: Variable,
    old: StoredVariable | undefined,
    timestamp: Uint8Array | null,
    signer: Uint8Array | null
  ): number {
    const { attributes } = variable
    if (old !== undefined && this.#atRuntime && (old.attributes & NON_VOLATILE) === 0) return WRITE_PROTECTED
    if (isDeletion(variable)) {
      if (old === undefined) return this.rules.absentDeletion
      this.variables.remove(old)
      return SUCCESS
    }
    const isAppended = (attributes & APPEND_WRITE) !== 0
    if (old === undefined && isAppended && variable.data.length === 0) return SUCCESS
    if (old === undefined && this.#atRuntime && (attributes & (RUNTIME_ACCESS | NON_VOLATILE)) !== NV_RT) {
      return INVALID_PARAMETER
    }
    if (old !== undefined && isAppended && !this.rules.appendsAnything && !isDatabase(variable)) return UNSUPPORTED
    const data = old !== undefined && isAppended ? appended(old, variable) : variable.data
    if (old !== undefined && timestamp === null && isEqual(old.data, data)) return SUCCESS
    if (nameSize(variable) + data.length > VARIABLE_LIMITS.VARIABLE - VARIABLE_LIMITS.HEADER) return INVALID_PARAMETER
    const { name, guid } = variable
    const since = old?.timestamp ?? null
    const latest = isAppended && since !== null && timestamp !== null && isLater(since, timestamp) ? since : timestamp
    const stored = { name, guid, attributes: attributes & ~APPEND_WRITE, data, timestamp: latest, signer }
    const room = this.variables.remaining(attributes) + (old === undefined ? 0 : storedSize(old))
    if (storedSize(stored) > room) return OUT_OF_RESOURCES
    this.variables.put(stored)
    return SUCCESS
  }
}

const NV_RT = RUNTIME_ACCESS | NON_VOLATILE
const NO_BYTES = new Uint8Array(0)

const keyOf = ({ name, guid }: VariableName): string => `${guid}${name}`

const isEqual = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

/** No data that is not appended, or no access at all. */
const isDeletion = ({ attributes, data }: Variable): boolean =>
  (data.length === 0 && (attributes & APPEND_WRITE) === 0) || (attributes & ACCESS) === 0

const appended = (old: StoredVariable, variable: Variable): Uint8Array => {
  const more = isDatabase(variable) ? newSignatures(old.data, variable.data) : variable.data
  return Uint8Array.from([...old.data, ...more])
}

/** Name and attributes alone. @returns a status */
const attributesStatus = ({ name, attributes }: Variable): number => {
  if (name === "" || (attributes & ~(CURRENT | AUTHENTICATED_WRITE_ACCESS)) !== 0) return INVALID_PARAMETER
  const isCounted = (attributes & AUTHENTICATED_WRITE_ACCESS) !== 0
  if ((attributes & ACCESS) === RUNTIME_ACCESS) return isCounted ? UNSUPPORTED : INVALID_PARAMETER
  if ((attributes & CURRENT) === NON_VOLATILE) return isCounted ? UNSUPPORTED : INVALID_PARAMETER
  if (isCounted) return UNSUPPORTED
  return (attributes & HARDWARE_ERROR_RECORD) !== 0 ? INVALID_PARAMETER : SUCCESS
}
