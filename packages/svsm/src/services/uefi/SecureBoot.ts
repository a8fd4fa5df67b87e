import { EFI_VARIABLE, nameBytes, UEFI_VENDOR, type Variable, type VariableName } from "@vmpl-lab/guest"
import { guidBytes } from "@vmpl-lab/sev-es"
import { certificatesIn, SIGNATURE_TYPE } from "./SignatureList.ts"
import type { StoredVariable, StoredVariables } from "./StoredVariables.ts"

const { NON_VOLATILE, BOOTSERVICE_ACCESS, RUNTIME_ACCESS, TIME_BASED_AUTHENTICATED_WRITE_ACCESS } = EFI_VARIABLE
const { GLOBAL, IMAGE_SECURITY_DATABASE, SECURE_BOOT_ENABLE, CUSTOM_MODE, SHIM } = UEFI_VENDOR

/** Attributes of the signature databases. */
export const DATABASE_ATTRIBUTES =
  NON_VOLATILE | BOOTSERVICE_ACCESS | RUNTIME_ACCESS | TIME_BASED_AUTHENTICATED_WRITE_ACCESS
const READ_ONLY_ATTRIBUTES = BOOTSERVICE_ACCESS | RUNTIME_ACCESS
const SWITCH_ATTRIBUTES = NON_VOLATILE | BOOTSERVICE_ACCESS

/** Variables of secure boot. Source: UEFI 2.10, 32.3 */
export const SECURE_BOOT = {
  PK: { name: "PK", guid: GLOBAL },
  KEK: { name: "KEK", guid: GLOBAL },
  DB: { name: "db", guid: IMAGE_SECURITY_DATABASE },
  DBX: { name: "dbx", guid: IMAGE_SECURITY_DATABASE },
  DBT: { name: "dbt", guid: IMAGE_SECURITY_DATABASE },
  SETUP_MODE: { name: "SetupMode", guid: GLOBAL },
  SECURE_BOOT: { name: "SecureBoot", guid: GLOBAL },
  SIGNATURE_SUPPORT: { name: "SignatureSupport", guid: GLOBAL },
  /** EDK2's own switches. */
  SECURE_BOOT_ENABLE: { name: "SecureBootEnable", guid: SECURE_BOOT_ENABLE },
  CUSTOM_MODE: { name: "CustomMode", guid: CUSTOM_MODE }
} as const

const { PK, KEK, DB, DBX, DBT, SETUP_MODE, SIGNATURE_SUPPORT } = SECURE_BOOT
const FB_NO_REBOOT: VariableName = { name: "FB_NO_REBOOT", guid: SHIM }

const isOneOf = ({ name, guid }: VariableName, names: ReadonlyArray<VariableName>): boolean =>
  names.some((one) => one.name === name && one.guid === guid)

/** A variable that holds signatures and is written with one. */
export const isDatabase = (name: VariableName): boolean => isOneOf(name, [PK, KEK, DB, DBX, DBT])

export const isPlatformKey = (name: VariableName): boolean => isOneOf(name, [PK])

/** What the service alone writes. */
export const isReadOnly = (name: VariableName): boolean =>
  isOneOf(name, [SETUP_MODE, SECURE_BOOT.SECURE_BOOT, SIGNATURE_SUPPORT])

/** What only a user who is physically present may change: no guest is one. */
export const needsPresence = (name: VariableName): boolean =>
  isOneOf(name, [SECURE_BOOT.SECURE_BOOT_ENABLE, SECURE_BOOT.CUSTOM_MODE])

/** Setup mode lasts until there is a PK. */
export const isSetupMode = (variables: StoredVariables): boolean => variables.find(PK) === undefined

/** Certificates that may sign a write of a database: PK's, for the image databases those of KEK too. */
export const trustedFor = (variables: StoredVariables, name: VariableName): ReadonlyArray<Uint8Array> => {
  const databases = isOneOf(name, [PK, KEK]) ? [PK] : [PK, KEK]
  return databases.flatMap((database) => certificatesIn(variables.find(database)?.data ?? new Uint8Array(0)))
}

const stored = (name: VariableName, attributes: number, data: Uint8Array): StoredVariable => ({
  ...name,
  attributes,
  data,
  timestamp: null,
  signer: null
})
const flag = (isSet: boolean): Uint8Array => Uint8Array.of(isSet ? 1 : 0)

/**
 * Brings the variables that tell of the mode in line with PK.
 * @param atRuntime SecureBoot and its switch stay until the next boot
 */
export const updateMode = (variables: StoredVariables, atRuntime: boolean): void => {
  const isSetup = isSetupMode(variables)
  variables.put(stored(SETUP_MODE, READ_ONLY_ATTRIBUTES, flag(isSetup)))
  if (atRuntime) return
  variables.put(stored(SECURE_BOOT.SECURE_BOOT, READ_ONLY_ATTRIBUTES, flag(!isSetup)))
  if (isSetup) variables.remove(SECURE_BOOT.SECURE_BOOT_ENABLE)
  else variables.put(stored(SECURE_BOOT.SECURE_BOOT_ENABLE, SWITCH_ATTRIBUTES, flag(true)))
}

/** Signature databases that are there from the start, as lists of signatures. */
export interface EnrolledKeys {
  readonly PK?: Uint8Array
  readonly KEK?: Uint8Array
  readonly DB?: Uint8Array
  readonly DBX?: Uint8Array
}

/** What a store holds before its first request. */
export const enroll = (variables: StoredVariables, keys: EnrolledKeys, tellsShim: boolean): void => {
  for (const key of ["PK", "KEK", "DB", "DBX"] as const) {
    const data = keys[key]
    if (data !== undefined) variables.put(stored(SECURE_BOOT[key], DATABASE_ATTRIBUTES, data))
  }
  updateMode(variables, false)
  const types = Object.values(SIGNATURE_TYPE).flatMap((guid) => [...guidBytes(guid)])
  variables.put(stored(SIGNATURE_SUPPORT, READ_ONLY_ATTRIBUTES, Uint8Array.from(types)))
  variables.put(stored(SECURE_BOOT.CUSTOM_MODE, SWITCH_ATTRIBUTES, flag(false)))
  if (tellsShim) variables.put(stored(FB_NO_REBOOT, NON_VOLATILE | READ_ONLY_ATTRIBUTES, flag(true)))
}

/** Name, vendor, attributes, time, data: what the signature of an authenticated write covers. Source: UEFI 2.10, 8.2.2 */
export const signedBytes = (variable: Variable, timestamp: Uint8Array): Uint8Array => {
  const name = nameBytes(variable.name)
  const attributes = new Uint8Array(4)
  new DataView(attributes.buffer).setUint32(0, variable.attributes, true)
  const parts = [name.subarray(0, name.length - 2), guidBytes(variable.guid), attributes, timestamp, variable.data]
  return Uint8Array.from(Buffer.concat(parts))
}
