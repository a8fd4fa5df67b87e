import { PROTOCOL, SVSM_RESULT, TPM_SEND_COMMAND, VTPM_BUFFER, VTPM_CALL } from "@vmpl-lab/guest"
import type { OutsidePort, Program } from "@vmpl-lab/vmpl"
import { work } from "@vmpl-lab/vmpl"
import { isGuestBuffer } from "../GuestAddress.ts"
import { RwLock } from "../Lock.ts"
import type { SvsmState } from "../State.ts"
import { type Caller, isCallersBuffer, readGuest, writeGuest } from "../services/GuestBuffer.ts"
import type { Protocol } from "./Protocol.ts"
import { gpaOf, type SvsmRequest, setRegister } from "./Request.ts"

/** A TPM's answer, and the virtual time that the SVSM's TPM would have worked on it. */
export interface TpmAnswer {
  readonly response: Uint8Array
  readonly ns: number
}

/**
 * The TPM behind the protocol. An SVSM has its code inside; the model has somebody outside of the simulation work the
 * answer out. Null says that there is no power.
 */
export type TpmPort = OutsidePort<Uint8Array, TpmAnswer | { readonly response: null }>

const { REQUEST, RESPONSE, SIZE } = VTPM_BUFFER

/** Bit of VTPM_QUERY's RCX for the platform command that is served. @spec SVSM 8.1 */
const COMMANDS_SERVED = 2 ** TPM_SEND_COMMAND

/**
 * vTPM protocol: one TPM for the guest, which serves one command at a time.
 * @spec SVSM 8 table 14
 */
export const vtpm = (tpm: TpmPort): Protocol => {
  const lock = new RwLock()
  return {
    number: PROTOCOL.VTPM,
    versions: () => ({ MIN: 1, MAX: 1 }),
    *serve(state, request) {
      if (request.call === VTPM_CALL.QUERY) return query(request)
      if (request.call !== VTPM_CALL.COMMAND) return SVSM_RESULT.UNSUPPORTED_CALL
      yield* lock.write()
      try {
        return yield* command(state, tpm, request.caller, gpaOf(request.rcxLo, request.rcxHi))
      } finally {
        lock.release()
      }
    }
  }
}

/** RCX: platform commands served, RDX: features, of which there are none. @spec SVSM 8.1 */
const query = (request: SvsmRequest): number => {
  setRegister(request, "rcx", COMMANDS_SERVED)
  setRegister(request, "rdx", 0)
  return SVSM_RESULT.SUCCESS
}

/** Bytes at the buffer's start that tell the platform command: they are looked at before the rest of its page. */
const COMMAND_SIZE = 4

/**
 * VTPM_CMD. The request is copied before it is looked at, and the checks come in COCONUT's order.
 * @spec SVSM 8.2 tables 16 and 17
 * @spec-silent the order of the checks, and what becomes of a response that has no room in the buffer
 */
function* command(state: SvsmState, tpm: TpmPort, caller: Caller, gpa: number): Program<number> {
  if (gpa === 0) return SVSM_RESULT.INVALID_PARAMETER
  if (!isGuestBuffer(state, gpa, COMMAND_SIZE)) return state.behaviour.unreadableArgument
  if (!(yield* isCallersBuffer(state, caller, gpa, COMMAND_SIZE))) return SVSM_RESULT.INVALID_ADDRESS
  const isWhole = yield* isCallersBuffer(state, caller, gpa, SIZE)
  const buffer = new Uint8Array(isWhole ? SIZE : COMMAND_SIZE)
  if (!(yield* readGuest(state, caller, gpa, buffer))) return SVSM_RESULT.INVALID_ADDRESS
  const view = new DataView(buffer.buffer)
  if (view.getUint32(REQUEST.command, true) !== TPM_SEND_COMMAND) return SVSM_RESULT.INVALID_PARAMETER
  if (!isWhole) return SVSM_RESULT.INVALID_ADDRESS
  const size = view.getUint32(REQUEST.size, true)
  if (buffer[REQUEST.locality] !== 0 || size > REQUEST.DATA_MAX) return SVSM_RESULT.INVALID_PARAMETER
  const answer = yield* tpm.ask(buffer.slice(REQUEST.data, REQUEST.data + size))
  if (answer.response === null) return SVSM_RESULT.INVALID_REQUEST
  const { response, ns } = answer
  if (ns > 0) yield work(ns)
  if (response.length > RESPONSE.DATA_MAX) {
    return state.behaviour.refusesLongResponse ? SVSM_RESULT.INVALID_REQUEST : SVSM_RESULT.SUCCESS
  }
  const reply = new Uint8Array(RESPONSE.data + response.length)
  new DataView(reply.buffer).setUint32(RESPONSE.size, response.length, true)
  reply.set(response, RESPONSE.data)
  return (yield* writeGuest(state, caller, gpa, reply)) ? SVSM_RESULT.SUCCESS : SVSM_RESULT.INVALID_ADDRESS
}
