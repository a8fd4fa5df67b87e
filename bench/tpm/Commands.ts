import { TPM_CC, WITH_SESSIONS, withSize } from "@vmpl-lab/lab"

/** Handles and algorithms that the commands below name. @spec TPM2 part 2 tables 9 and 28 */
const OWNER = 0x4000_0001
const NULL_HIERARCHY = 0x4000_0007
const PASSWORD_SESSION = 0x4000_0009
const NV_INDEX = 0x0150_0000
const HASHCHECK = 0x8024
const NO_SESSIONS = 0x8001
const ALG = { RSA: 0x0001, SHA256: 0x000b, NULL: 0x0010, RSASSA: 0x0014, ECDSA: 0x0018, ECC: 0x0023 } as const
const NIST_P256 = 0x0003

/** fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign. @spec TPM2 part 2 8.3 */
const SIGNING_KEY = 0x0004_0472
/** OWNERWRITE, AUTHWRITE, OWNERREAD, AUTHREAD, NO_DA. @spec TPM2 part 2 13.4 */
const NV_ATTRIBUTES = 0x0206_0006

type Bytes = ReadonlyArray<number>

const u16 = (value: number): Bytes => [value >>> 8, value & 0xff]
const u32 = (value: number): Bytes => [...u16(value >>> 16), ...u16(value & 0xffff)]

const sized = (bytes: Bytes): Bytes => [...u16(bytes.length), ...bytes]
const filled = (length: number): Bytes => Array.from({ length }, (_, i) => i & 0xff)

const plain = (code: number, parameters: Bytes = []): Uint8Array =>
  withSize([...u16(NO_SESSIONS), ...u32(0), ...u32(code), ...parameters])

/** A command with an empty password for its first handle. */
const authorised = (code: number, handles: ReadonlyArray<number>, parameters: Bytes): Uint8Array => {
  const session = [...u32(PASSWORD_SESSION), ...u16(0), 0, ...u16(0)]
  const handleBytes = handles.flatMap((handle) => u32(handle))
  return withSize([
    ...u16(WITH_SESSIONS),
    ...u32(0),
    ...u32(code),
    ...handleBytes,
    ...u32(session.length),
    ...session,
    ...parameters
  ])
}

const createPrimary = (publicArea: Bytes): Uint8Array =>
  authorised(
    TPM_CC.CreatePrimary,
    [OWNER],
    [...sized([...u16(0), ...u16(0)]), ...sized(publicArea), ...u16(0), ...u32(0)]
  )

const publicArea = (type: number, parameters: Bytes): Bytes => [
  ...u16(type),
  ...u16(ALG.SHA256),
  ...u32(SIGNING_KEY),
  ...u16(0),
  ...u16(ALG.NULL),
  ...parameters
]

/** A code that no TPM knows: what its answer takes is the way there and back. */
export const unknownCommand = (): Uint8Array => plain(0x1ff)

export const fullSelfTest = (): Uint8Array => plain(TPM_CC.SelfTest, [1])

export const getRandom = (): Uint8Array => plain(TPM_CC.GetRandom, u16(16))

export const pcrExtend = (): Uint8Array =>
  authorised(TPM_CC.PCR_Extend, [16], [...u32(1), ...u16(ALG.SHA256), ...filled(32)])

export const createEccKey = (): Uint8Array =>
  createPrimary(
    publicArea(ALG.ECC, [
      ...u16(ALG.ECDSA),
      ...u16(ALG.SHA256),
      ...u16(NIST_P256),
      ...u16(ALG.NULL),
      ...u16(0),
      ...u16(0)
    ])
  )

/** @param unique another number gives another key, as primary keys are derived from their template */
export const createRsaKey = (unique: number): Uint8Array =>
  createPrimary(
    publicArea(ALG.RSA, [...u16(ALG.RSASSA), ...u16(ALG.SHA256), ...u16(2048), ...u32(0), ...sized(u32(unique))])
  )

export const sign = (key: number): Uint8Array =>
  authorised(
    TPM_CC.Sign,
    [key],
    [...sized(filled(32)), ...u16(ALG.NULL), ...u16(HASHCHECK), ...u32(NULL_HIERARCHY), ...u16(0)]
  )

export const contextSave = (object: number): Uint8Array => plain(TPM_CC.ContextSave, u32(object))

export const nvDefine = (): Uint8Array =>
  authorised(
    TPM_CC.NV_DefineSpace,
    [OWNER],
    [...u16(0), ...sized([...u32(NV_INDEX), ...u16(ALG.SHA256), ...u32(NV_ATTRIBUTES), ...u16(0), ...u16(32)])]
  )

/** @param value what is written: equal data would not be stored again */
export const nvWrite = (value: number): Uint8Array =>
  authorised(TPM_CC.NV_Write, [NV_INDEX, NV_INDEX], [...sized([...u32(value), ...filled(28)]), ...u16(0)])

/** Handle of the object that a response brings. */
export const createdHandle = (response: Uint8Array): number =>
  new DataView(response.buffer, response.byteOffset).getUint32(10)
