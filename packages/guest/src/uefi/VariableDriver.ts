import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, readBytes, writeBytes } from "@vmpl-lab/vmpl"
import { PROTOCOL, SVSM_RESULT, type SvsmCaller } from "../SvsmCall.ts"
import { EFI_STATUS, MM_RECEIVER, MM_VARIABLE, NO_STATUS, UEFI_MM_CALL } from "./MmMessage.ts"
import {
  eventMessage,
  getVariableMessage,
  lockVariableMessage,
  nextNameIn,
  nextNameMessage,
  noticeMessage,
  payloadSizeIn,
  payloadSizeMessage,
  queryInfoIn,
  queryInfoMessage,
  setVariableMessage,
  type Variable,
  type VariableInfo,
  type VariableName,
  variableIn,
  variableStatus
} from "./VariableMessages.ts"

/** Where an enumeration begins. */
export const FIRST_VARIABLE: VariableName = { name: "", guid: "00000000-0000-0000-0000-000000000000" }

/** What became of a request: the call's result, and the status that the service gave where it was served. */
export interface VariableOutcome {
  readonly result: number
  /** Of EFI_STATUS; NO_STATUS where the call was refused, or where the message holds none. */
  readonly status: number
}

/**
 * The guest's variable driver: it has a private buffer that its messages go through, and makes one request at a time, as
 * EDK2's firmware does.
 */
export class VariableDriver {
  readonly #svsm: SvsmCaller
  readonly #bufferGpa: number
  readonly #bufferSize: number

  /**
   * @param bufferGpa page aligned
   * @param bufferSize bytes, whole pages one behind the other
   */
  constructor(svsm: SvsmCaller, bufferGpa: number, bufferSize: number) {
    this.#svsm = svsm
    this.#bufferGpa = bufferGpa
    this.#bufferSize = bufferSize
  }

  /** Sends a message, which is replaced by the answer. @returns the call's result */
  *request(message: Uint8Array): Program<number> {
    const size = this.#bufferSize
    if (message.length > size) return SVSM_RESULT.INVALID_PARAMETER
    yield* this.#copy(message, writeBytes)
    const result = yield* this.#svsm.call(PROTOCOL.UEFI_MM, UEFI_MM_CALL.REQUEST, { rcx: this.#bufferGpa, rdx: size })
    if (result === SVSM_RESULT.SUCCESS) yield* this.#copy(message, readBytes)
    return result
  }

  /** GetVariable with room for `room` bytes. */
  *getVariable(
    variable: VariableName,
    room: number
  ): Program<VariableOutcome & { readonly attributes: number; readonly size: number; readonly data: Uint8Array }> {
    const message = getVariableMessage(variable, room)
    const outcome = yield* this.#variables(message)
    return { ...outcome, ...variableIn(message) }
  }

  /** SetVariable. */
  setVariable(variable: Variable): Program<VariableOutcome> {
    return this.#variables(setVariableMessage(variable))
  }

  /** The name behind this one; behind an empty name is the first. Null at the end, or where the service refuses. */
  *nextName(after: VariableName, room: number): Program<VariableName | null> {
    const message = nextNameMessage(after, room)
    const { status } = yield* this.#variables(message)
    return status === EFI_STATUS.SUCCESS ? nextNameIn(message) : null
  }

  /** All names, in the service's order. */
  *names(room: number): Program<ReadonlyArray<VariableName>> {
    const names: Array<VariableName> = []
    let next = yield* this.nextName(FIRST_VARIABLE, room)
    while (next !== null) {
      names.push(next)
      next = yield* this.nextName(next, room)
    }
    return names
  }

  /** QueryVariableInfo. */
  *queryInfo(attributes: number): Program<VariableOutcome & VariableInfo> {
    const message = queryInfoMessage(attributes)
    const outcome = yield* this.#variables(message)
    return { ...outcome, ...queryInfoIn(message) }
  }

  /** GetPayloadSize: most bytes of a request behind its two headers; null where the service refuses. */
  *payloadSize(): Program<number | null> {
    const message = payloadSizeMessage()
    const { status } = yield* this.#variables(message)
    return status === EFI_STATUS.SUCCESS ? payloadSizeIn(message) : null
  }

  /** LockVariable. */
  lock(variable: VariableName): Program<VariableOutcome> {
    return this.#variables(lockVariableMessage(variable))
  }

  /** The end of DXE: policies hold from now on. @returns the call's result */
  endOfDxe(): Program<number> {
    return this.request(eventMessage(MM_RECEIVER.END_OF_DXE))
  }

  /** ExitBootServices: variables for boot services only are gone. */
  exitBootServices(): Program<VariableOutcome> {
    return this.#variables(noticeMessage(MM_VARIABLE.EXIT_BOOT_SERVICE))
  }

  *#variables(message: Uint8Array): Program<VariableOutcome> {
    const result = yield* this.request(message)
    return { result, status: result === SVSM_RESULT.SUCCESS ? variableStatus(message) : NO_STATUS }
  }

  *#copy(bytes: Uint8Array, operation: typeof readBytes | typeof writeBytes): Program {
    for (let at = 0; at < bytes.length; at += PAGE_SIZE) {
      yield operation(this.#bufferGpa + at, bytes.subarray(at, at + PAGE_SIZE))
    }
  }
}
