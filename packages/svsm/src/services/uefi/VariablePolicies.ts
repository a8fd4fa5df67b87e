import {
  EFI_STATUS,
  LOCK_ON_STATE,
  LOCK_POLICY,
  nameIn,
  POLICY_ENTRY,
  type VariableName,
  type VariablePolicy
} from "@vmpl-lab/guest"
import { guidText } from "@vmpl-lab/sev-es"

/** A policy as it is kept. */
interface Policy extends VariablePolicy {
  /** The variable whose one byte locks by being `value`; null where another thing locks. */
  readonly state: (VariableName & { readonly value: number }) | null
  /** As it was registered. */
  readonly entry: Uint8Array
}

/** Bytes that all policies may have together: an assumption, EDK2's are bounded by its memory. */
export const POLICIES_MAX = 0x1_0000

/** Hexadecimal wildcards that a name may have. Source: EDK2, VariablePolicyLib.c, MATCH_PRIORITY_MIN */
const WILDCARDS_MAX = 255

const HEX = /^[0-9A-Fa-f]$/

/** How badly a policy fits a name, 0 is exact; null where it does not. */
const distance = (policy: VariablePolicy, { name, guid }: VariableName): number | null => {
  if (policy.guid !== guid) return null
  if (policy.name === "") return WILDCARDS_MAX + 1
  if (policy.name.length !== name.length) return null
  let wildcards = 0
  for (let i = 0; i < name.length; i++) {
    if (policy.name[i] === "#" && HEX.test(name[i]!)) wildcards++
    else if (policy.name[i] !== name[i] || policy.name[i] === "#") return null
  }
  return wildcards
}

/** Reads an entry; null where it is malformed. @see POLICY_ENTRY */
const parse = (bytes: Uint8Array): Policy | null => {
  if (bytes.length < POLICY_ENTRY.SIZE) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const size = view.getUint16(POLICY_ENTRY.size, true)
  const toName = view.getUint16(POLICY_ENTRY.offset_to_name, true)
  const lock = view.getUint8(POLICY_ENTRY.lock_policy_type)
  const maxSize = view.getUint32(POLICY_ENTRY.max_size, true)
  if (view.getUint32(POLICY_ENTRY.version, true) !== POLICY_ENTRY.REVISION) return null
  if (size < POLICY_ENTRY.SIZE || size > bytes.length || toName > size) return null
  if (maxSize === 0 || lock > LOCK_POLICY.LOCK_ON_VAR_STATE) return null
  const entry = bytes.slice(0, size)
  const state = lock === LOCK_POLICY.LOCK_ON_VAR_STATE ? stateIn(entry.subarray(POLICY_ENTRY.SIZE, toName)) : null
  if (lock === LOCK_POLICY.LOCK_ON_VAR_STATE ? state === null : toName !== POLICY_ENTRY.SIZE) return null
  const name = size === toName ? "" : wholeName(entry.subarray(toName))
  if (name === null || [...name].filter((unit) => unit === "#").length > WILDCARDS_MAX) return null
  return {
    name,
    guid: guidText(entry, POLICY_ENTRY.namespace),
    minSize: view.getUint32(POLICY_ENTRY.min_size, true),
    maxSize,
    mustHave: view.getUint32(POLICY_ENTRY.attributes_must_have, true),
    cantHave: view.getUint32(POLICY_ENTRY.attributes_cant_have, true),
    lock,
    state,
    entry
  }
}

/** A name that fills the bytes with its end; null where it does not. */
const wholeName = (bytes: Uint8Array): string | null => {
  const name = nameIn(bytes)
  return 2 * name.length + 2 === bytes.length ? name : null
}

const stateIn = (bytes: Uint8Array): (VariableName & { readonly value: number }) | null => {
  if (bytes.length < LOCK_ON_STATE.name) return null
  const name = wholeName(bytes.subarray(LOCK_ON_STATE.name))
  return name === null ? null : { name, guid: guidText(bytes, 0), value: bytes[LOCK_ON_STATE.value]! }
}

/** A write as policies see it. `value` of another variable: its data, or undefined where it cannot be read. */
export interface PolicyQuestion extends VariableName {
  readonly attributes: number
  readonly size: number
  readonly isDeletion: boolean
  readonly value: (name: VariableName) => Uint8Array | undefined
}

/** The policies of one store. Source: EDK2, MdeModulePkg/Library/VariablePolicyLib/VariablePolicyLib.c */
export class VariablePolicies {
  readonly #policies: Array<Policy> = []
  #isLocked = false

  /** No policy is added any more. @returns a status */
  lock(): number {
    if (this.#isLocked) return EFI_STATUS.WRITE_PROTECTED
    this.#isLocked = true
    return EFI_STATUS.SUCCESS
  }

  get isLocked(): boolean {
    return this.#isLocked
  }

  /** Adds a policy from the bytes of its entry. @returns a status */
  register(bytes: Uint8Array): number {
    if (this.#isLocked) return EFI_STATUS.WRITE_PROTECTED
    const policy = parse(bytes)
    if (policy === null) return EFI_STATUS.INVALID_PARAMETER
    const isThere = this.#policies.some(({ name, guid }) => name === policy.name && guid === policy.guid)
    if (isThere) return EFI_STATUS.ALREADY_STARTED
    if (this.dump().length + policy.entry.length > POLICIES_MAX) return EFI_STATUS.OUT_OF_RESOURCES
    this.#policies.push(policy)
    return EFI_STATUS.SUCCESS
  }

  /** What the policy that fits best says to a write. @returns a status */
  check(question: PolicyQuestion): number {
    const policy = this.#best(question)
    if (policy === undefined) return EFI_STATUS.SUCCESS
    const { attributes, size, isDeletion, value } = question
    if (!isDeletion) {
      if (size < policy.minSize || size > policy.maxSize) return EFI_STATUS.INVALID_PARAMETER
      if ((attributes & policy.mustHave) !== policy.mustHave) return EFI_STATUS.INVALID_PARAMETER
      if ((attributes & policy.cantHave) !== 0) return EFI_STATUS.INVALID_PARAMETER
    }
    const locks =
      policy.lock === LOCK_POLICY.LOCK_NOW ||
      (policy.lock === LOCK_POLICY.LOCK_ON_CREATE && value(question) !== undefined) ||
      (policy.state !== null && isByte(value(policy.state), policy.state.value))
    return locks ? EFI_STATUS.WRITE_PROTECTED : EFI_STATUS.SUCCESS
  }

  /** All entries, one behind the other. */
  dump(): Uint8Array {
    return Uint8Array.from(Buffer.concat(this.#policies.map(({ entry }) => entry)))
  }

  #best(name: VariableName): Policy | undefined {
    let best: Policy | undefined
    let nearest = Infinity
    for (const policy of this.#policies) {
      const far = distance(policy, name)
      if (far === null || far >= nearest) continue
      best = policy
      nearest = far
    }
    return best
  }
}

const isByte = (data: Uint8Array | undefined, value: number): boolean => data?.length === 1 && data[0] === value
