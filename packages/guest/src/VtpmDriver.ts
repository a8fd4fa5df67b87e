import { type Program, read, readBytes, write, writeBytes } from "@vmpl-lab/vmpl"
import { PROTOCOL, SVSM_RESULT, type SvsmCaller } from "./SvsmCall.ts"

/** Calls of the vTPM protocol, version 1. @spec SVSM 8 table 14 */
export const VTPM_CALL = { QUERY: 0, COMMAND: 1 } as const

/** The one platform command that a vTPM takes, by the number that the TPM simulator gives it. */
export const TPM_SEND_COMMAND = 8

/** The buffer, one page long: a request turns into its response. @spec SVSM 8.2 tables 16 and 17 */
export const VTPM_BUFFER = {
  SIZE: 4096,
  REQUEST: { command: 0, locality: 4, size: 5, data: 9, DATA_MAX: 4087 },
  RESPONSE: { size: 0, data: 4, DATA_MAX: 4092 }
} as const

/** What became of a TPM command: the call's result, and the TPM's response where it was served. */
export interface TpmOutcome {
  readonly result: number
  readonly response: Uint8Array
}

/**
 * Sends one TPM command through the SVSM, as the guest's TPM driver does.
 * @param bufferGpa a private page of the driver's, page aligned
 * @param size what the request says the command's size is, for requests that lie
 * @spec SVSM 8.2
 */
export function* tpmCommand(
  svsm: SvsmCaller,
  bufferGpa: number,
  command: Uint8Array,
  locality: number,
  size = command.length
): Program<TpmOutcome> {
  const { REQUEST, RESPONSE } = VTPM_BUFFER
  yield write(bufferGpa + REQUEST.command, 4, TPM_SEND_COMMAND)
  yield write(bufferGpa + REQUEST.locality, 1, locality)
  yield write(bufferGpa + REQUEST.size, 4, size)
  if (command.length > 0) yield writeBytes(bufferGpa + REQUEST.data, command.subarray(0, REQUEST.DATA_MAX))
  const result = yield* svsm.call(PROTOCOL.VTPM, VTPM_CALL.COMMAND, { rcx: bufferGpa })
  if (result !== SVSM_RESULT.SUCCESS) return { result, response: new Uint8Array(0) }
  const length = Math.min((yield read(bufferGpa + RESPONSE.size, 4)).lo, RESPONSE.DATA_MAX)
  const response = new Uint8Array(length)
  if (length > 0) yield readBytes(bufferGpa + RESPONSE.data, response)
  return { result, response }
}
