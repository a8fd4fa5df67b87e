import { MM_HEADER, PROTOCOL, SVSM_RESULT, UEFI_MM_BUFFER_MAX, UEFI_MM_CALL } from "@vmpl-lab/guest"
import { getU64, guidText, PAGE_SIZE, toNumber } from "@vmpl-lab/sev-es"
import { type Program, work } from "@vmpl-lab/vmpl"
import { validRegion } from "../GuestAddress.ts"
import { type Lock, RwLock } from "../Lock.ts"
import { SERVICE_GUID } from "../ServiceManifest.ts"
import type { SvsmState } from "../State.ts"
import { type Caller, isCallersBuffer, readGuest, writeGuest } from "../services/GuestBuffer.ts"
import type { SignatureVerifier } from "../services/uefi/Authenticated.ts"
import { ManagementMode } from "../services/uefi/MmDispatch.ts"
import type { EnrolledKeys } from "../services/uefi/SecureBoot.ts"
import { takeStoreTime, UEFI_MM_COST } from "../services/uefi/UefiMmCost.ts"
import { type Protocol, unknownCall } from "./Protocol.ts"
import { gpaOf, type SvsmRequest } from "./Request.ts"

/** What an SVSM's management mode is made with. */
export interface UefiMmOptions {
  /** Verifies authenticated writes; without one, none that needs a signature is accepted. */
  readonly verifier?: SignatureVerifier
  /** Secure boot databases that are there from the start. */
  readonly enrolled?: EnrolledKeys
}

/** The protocol, and the management mode that each SVSM has behind it. */
export interface UefiMm extends Protocol {
  readonly managementMode: (state: SvsmState) => ManagementMode
}

const { SUCCESS, INVALID_PARAMETER, INVALID_ADDRESS } = SVSM_RESULT

/**
 * UEFI MM protocol, COCONUT-SVSM's: the guest's firmware sends the messages to it that it would send to management mode,
 * and finds the service of UEFI variables there. The store is forgotten with the SVSM. Source: COCONUT-SVSM,
 * Documentation/docs/protocols/uefivars.md
 * @spec-silent the whole protocol: revision 1.00 does not have it
 */
export const uefiMm = ({ verifier, enrolled = {} }: UefiMmOptions = {}): UefiMm => {
  const lock = new RwLock()
  const modes = new WeakMap<SvsmState, ManagementMode>()
  const managementMode = (state: SvsmState): ManagementMode => {
    let mode = modes.get(state)
    if (mode === undefined) {
      mode = new ManagementMode({ rules: state.behaviour.uefiMm.rules, verifier: verifier ?? null, enrolled })
      modes.set(state, mode)
    }
    return mode
  }
  return {
    number: PROTOCOL.UEFI_MM,
    versions: () => ({ MIN: 1, MAX: 1 }),
    manifest: (state) => ({ guid: SERVICE_GUID.UEFI_MM, bytes: () => manifest(managementMode(state)) }),
    managementMode,
    *serve(state, request) {
      if (request.call !== UEFI_MM_CALL.REQUEST) return unknownCall(state, PROTOCOL.UEFI_MM)
      const buffer = checkedBuffer(state, request)
      if (typeof buffer === "number") return buffer
      return yield* serveMessage(state, managementMode(state), lock, request.caller, buffer)
    }
  }
}

/** Flags of the manifest. Source: COCONUT-SVSM, kernel/src/protocols/uefivars.rs, UefiMmManifestFlags */
export const UEFI_MM_FLAG = { PERSISTENT: 1, SECURE_BOOT: 2, DATABASE_UPDATE: 4 } as const

const MANIFEST_SIZE = 8

/** Version 0, then flags. */
const manifest = ({ variables }: ManagementMode): Uint8Array => {
  const bytes = new Uint8Array(MANIFEST_SIZE)
  const secureBoot = variables.isSecureBoot ? UEFI_MM_FLAG.SECURE_BOOT : 0
  const update = variables.takesDatabaseUpdates ? UEFI_MM_FLAG.DATABASE_UPDATE : 0
  new DataView(bytes.buffer).setUint32(4, secureBoot | update, true)
  return bytes
}

interface Buffer {
  readonly gpa: number
  readonly size: number
}

/**
 * What can be said of RCX and RDX before anything is read: null, alignment and size, as a wrong parameter. COCONUT-SVSM
 * looks at the address with its alignment first. @returns the buffer, or why it is refused
 */
const checkedBuffer = (state: SvsmState, request: SvsmRequest): Buffer | number => {
  const gpa = gpaOf(request.rcxLo, request.rcxHi)
  const size = toNumber(request.rdxLo, request.rdxHi)
  const isAligned = gpa % PAGE_SIZE === 0
  if (gpa === 0) return INVALID_PARAMETER
  if (state.behaviour.uefiMm.addressFirst) {
    if (!validRegion(state, gpa, 1) || !isAligned) return INVALID_ADDRESS
  } else if (!isAligned) return INVALID_PARAMETER
  return size >= MM_HEADER.SIZE && size <= UEFI_MM_BUFFER_MAX ? { gpa, size } : INVALID_PARAMETER
}

/**
 * Copies the message, has it served, and puts the answer in its place. It is never longer than the message, and nothing
 * else of the guest's memory is written.
 */
function* serveMessage(
  state: SvsmState,
  mode: ManagementMode,
  lock: Lock,
  caller: Caller,
  { gpa, size }: Buffer
): Program<number> {
  const { SIZE } = MM_HEADER
  const { wholeBuffer } = state.behaviour.uefiMm
  if (!(yield* isCallersBuffer(state, caller, gpa, wholeBuffer ? size : SIZE))) return INVALID_ADDRESS
  const header = new Uint8Array(SIZE)
  if (!(yield* readGuest(state, caller, gpa, header))) return INVALID_ADDRESS
  const length = getU64(new DataView(header.buffer), MM_HEADER.length)
  if (length > size - SIZE) return INVALID_PARAMETER
  if (!wholeBuffer && !(yield* isCallersBuffer(state, caller, gpa, SIZE + length))) return INVALID_ADDRESS
  const message = new Uint8Array(length)
  if (!(yield* readGuest(state, caller, gpa + SIZE, message))) return INVALID_ADDRESS
  const answered = yield* dispatch(mode, lock, guidText(header, MM_HEADER.guid), message)
  const isWritten = yield* writeGuest(state, caller, gpa + SIZE, message.subarray(0, answered))
  return isWritten ? SUCCESS : INVALID_ADDRESS
}

/** One message at a time: the store is all vCPUs'. @returns how many bytes of the message make the answer */
function* dispatch(mode: ManagementMode, lock: Lock, receiver: string, message: Uint8Array): Program<number> {
  yield* lock.write()
  try {
    const answered = mode.dispatch(receiver, message)
    yield work(UEFI_MM_COST.MESSAGE + takeStoreTime(mode.variables.variables.steps))
    return answered
  } finally {
    lock.release()
  }
}
