import {
  type ClientJob,
  EFI_VARIABLE,
  FIRST_VARIABLE,
  getVariableMessage,
  nextNameMessage,
  PROTOCOL,
  queryInfoMessage,
  setVariableMessage,
  UEFI_MM_CALL,
  UEFI_VENDOR,
  type Variable
} from "@vmpl-lab/guest"

/** A variable as firmware has one for each way to boot. Its value is another one in each round, else nothing is written. */
const bootOption = (round: number): Variable => ({
  name: "Boot0001",
  guid: UEFI_VENDOR.GLOBAL,
  attributes: EFI_VARIABLE.NON_VOLATILE | EFI_VARIABLE.BOOTSERVICE_ACCESS | EFI_VARIABLE.RUNTIME_ACCESS,
  data: new Uint8Array(DATA_SIZE).fill(round)
})
const DATA_SIZE = 256
const NAME_ROOM = 128

/** One call of the table. */
export interface UefiVariableJob {
  readonly name: string
  /** @param round counts from 0 */
  readonly job: (round: number) => ClientJob
}

/**
 * Calls of the variable service that a guest can make again and again, in an order in which each one succeeds.
 * @param buffers pages of the guest's, one behind the other: the first one holds the messages
 */
export const uefiVariableJobs = (buffers: ReadonlyArray<number>): ReadonlyArray<UefiVariableJob> => {
  const gpa = buffers[0]!
  const request = (bytes: Uint8Array): ClientJob => ({
    kind: "call",
    protocol: PROTOCOL.UEFI_MM,
    call: UEFI_MM_CALL.REQUEST,
    registers: { rcx: gpa, rdx: 0x1000 * buffers.length },
    writes: [{ gpa, bytes }],
    reads: []
  })
  const { attributes } = bootOption(0)
  return [
    { name: "SetVariable, 256 bytes", job: (round) => request(setVariableMessage(bootOption(round))) },
    { name: "GetVariable, 256 bytes", job: (round) => request(getVariableMessage(bootOption(round), DATA_SIZE)) },
    { name: "GetNextVariableName", job: () => request(nextNameMessage(FIRST_VARIABLE, NAME_ROOM)) },
    { name: "QueryVariableInfo", job: () => request(queryInfoMessage(attributes)) }
  ]
}
