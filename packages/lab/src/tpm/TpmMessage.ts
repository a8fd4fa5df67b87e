/** TPM 2.0 messages: big-endian, a header of tag, size and code. @spec TPM2 part 1 */
const HEADER = 10

/** Commands of which something must be known, by their codes. @spec TPM2 part 2 table 12 */
export const TPM_CC = {
  CreatePrimary: 0x131,
  PolicyNV: 0x149,
  NV_DefineSpace: 0x12a,
  NV_UndefineSpace: 0x122,
  NV_Write: 0x137,
  NV_Increment: 0x134,
  NV_Extend: 0x136,
  NV_Read: 0x14e,
  Create: 0x153,
  Load: 0x157,
  Quote: 0x158,
  RSA_Decrypt: 0x159,
  Sign: 0x15d,
  Unseal: 0x15e,
  ContextLoad: 0x161,
  ContextSave: 0x162,
  FlushContext: 0x165,
  ReadPublic: 0x173,
  RSA_Encrypt: 0x174,
  StartAuthSession: 0x176,
  GetCapability: 0x17a,
  GetRandom: 0x17b,
  PCR_Read: 0x17e,
  PCR_Extend: 0x182,
  PCR_Event: 0x13c,
  PolicyPCR: 0x17f,
  PolicySecret: 0x151,
  Startup: 0x144,
  SelfTest: 0x143,
  Shutdown: 0x145,
  Clear: 0x126,
  Certify: 0x148,
  Import: 0x156,
  ActivateCredential: 0x147,
  ECDH_KeyGen: 0x163,
  ECDH_ZGen: 0x154,
  VerifySignature: 0x177,
  Hash: 0x17d,
  EvictControl: 0x120,
  CreateLoaded: 0x191
} as const

/** Response codes. @spec TPM2 part 2 table 16 */
export const TPM_RC = {
  SUCCESS: 0,
  INSUFFICIENT: 0x9a,
  FAILURE: 0x101,
  COMMAND_SIZE: 0x142,
  LOCALITY: 0x907
} as const

export const WITH_SESSIONS = 0x8002
const NO_SESSIONS = 0x8001

/** A response of a header alone. */
export const tpmError = (code: number): Uint8Array => {
  const bytes = new Uint8Array(HEADER)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, NO_SESSIONS)
  view.setUint32(2, HEADER)
  view.setUint32(6, code)
  return bytes
}

/** What a TPM answers to bytes that are no whole command, before it looks at what they ask; null for a whole one. */
export const framingError = (command: Uint8Array): Uint8Array | null => {
  if (command.length < HEADER) return tpmError(TPM_RC.INSUFFICIENT)
  return viewOf(command).getUint32(2) === command.length ? null : tpmError(TPM_RC.COMMAND_SIZE)
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

/** Code of a whole command. */
export const commandCode = (command: Uint8Array): number => viewOf(command).getUint32(6)

/** Response code of a whole response. */
export const responseCode = (response: Uint8Array): number => viewOf(response).getUint32(6)

/** How long the response is that begins with these bytes; undefined while too few of them are there. */
export const responseLength = (bytes: Uint8Array): number | undefined =>
  bytes.length < 6 ? undefined : viewOf(bytes).getUint32(2)

const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(TPM_CC).map(([name, code]) => [code, name]))

/** `TPM2_GetRandom`, or the code where the name is not known; for what is no command, that. */
export const commandName = (command: Uint8Array): string => {
  if (command.length < HEADER) return "not a command"
  const code = commandCode(command)
  const name = NAMES.get(code)
  return name === undefined ? `command 0x${code.toString(16)}` : `TPM2_${name}`
}

/** TPM2_Startup(CLEAR), which the guest's firmware sends first. */
export const startupClear = (): Uint8Array => {
  const bytes = tpmError(TPM_CC.Startup)
  return withSize([...bytes, 0, 0])
}

/** TPM2_FlushContext. */
export const flushContext = (handle: number): Uint8Array => withSize([...tpmError(TPM_CC.FlushContext), ...u32(handle)])

export const u16 = (value: number): ReadonlyArray<number> => [value >>> 8, value & 0xff]
export const u32 = (value: number): ReadonlyArray<number> => [...u16(value >>> 16), ...u16(value & 0xffff)]

/** Bytes of a message with its size filled in. */
export const withSize = (bytes: ReadonlyArray<number>): Uint8Array => {
  const message = Uint8Array.from(bytes)
  viewOf(message).setUint32(2, message.length)
  return message
}

/** Algorithm of a public area. @spec TPM2 part 2 table 9 */
export const TPM_ALG = { RSA: 0x0001, KEYEDHASH: 0x0008, ECC: 0x0023, SYMCIPHER: 0x0025 } as const

/**
 * Which kind of object a TPM2_CreatePrimary or TPM2_Create is to make: handle, authorisations, sensitive part, and then
 * the public area, which begins with its type. Undefined where the bytes do not get that far.
 * @spec TPM2 part 3 12.1, 24.1
 */
export const createdType = (command: Uint8Array): number | undefined => {
  const view = viewOf(command)
  const hasSessions = command.length >= 2 && view.getUint16(0) === WITH_SESSIONS
  let at = HEADER + 4
  if (hasSessions) {
    if (at + 4 > command.length) return undefined
    at += 4 + view.getUint32(at)
  }
  if (at + 2 > command.length) return undefined
  at += 2 + view.getUint16(at)
  return at + 4 > command.length ? undefined : view.getUint16(at + 2)
}
