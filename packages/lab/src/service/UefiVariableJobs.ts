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

/** A variable as firmware has one for each way to boot, a few hundred bytes long. */
const BOOT_OPTION: Variable = {
  name: "Boot0001",
  guid: UEFI_VENDOR.GLOBAL,
  attributes: EFI_VARIABLE.NON_VOLATILE | EFI_VARIABLE.BOOTSERVICE_ACCESS | EFI_VARIABLE.RUNTIME_ACCESS,
  data: new Uint8Array(256).fill(1)
}
const NAME_ROOM = 128

/**
 * Calls of the variable service that a guest can make again and again, in an order in which each one succeeds.
 * @param buffers pages of the guest's, one behind the other: the first one holds the messages
 */
export const uefiVariableJobs = (
  buffers: ReadonlyArray<number>
): ReadonlyArray<readonly [name: string, job: ClientJob]> => {
  const gpa = buffers[0]!
  const job = (bytes: Uint8Array): ClientJob => ({
    kind: "call",
    protocol: PROTOCOL.UEFI_MM,
    call: UEFI_MM_CALL.REQUEST,
    registers: { rcx: gpa, rdx: 0x1000 * buffers.length },
    writes: [{ gpa, bytes }],
    reads: []
  })
  return [
    ["SetVariable, 256 bytes", job(setVariableMessage(BOOT_OPTION))],
    ["GetVariable, 256 bytes", job(getVariableMessage(BOOT_OPTION, BOOT_OPTION.data.length))],
    ["GetNextVariableName", job(nextNameMessage(FIRST_VARIABLE, NAME_ROOM))],
    ["QueryVariableInfo", job(queryInfoMessage(BOOT_OPTION.attributes))]
  ]
}
