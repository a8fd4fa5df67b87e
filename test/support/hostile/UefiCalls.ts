import {
  EFI_VARIABLE,
  eventMessage,
  getVariableMessage,
  lockVariableMessage,
  MM_RECEIVER,
  nextNameMessage,
  POLICY_COMMAND,
  payloadSizeMessage,
  policyMessage,
  queryInfoMessage,
  registerPolicyMessage,
  setVariableMessage,
  UEFI_VENDOR,
  type VariableName
} from "@vmpl-lab/guest"
import type { ManagementMode } from "@vmpl-lab/svsm"
import type { Secrets } from "./Secrets.ts"

/** Variables that are there from the start, and are not for an operating system. */
export const HIDDEN_VARIABLES = ["FirmwareSecret", "BootPassword"] as const

const NAMES = ["BootOrder", "PK", "db", "SecureBoot", "A", ...HIDDEN_VARIABLES]
const { NON_VOLATILE, BOOTSERVICE_ACCESS, RUNTIME_ACCESS, APPEND_WRITE } = EFI_VARIABLE
const ATTRIBUTES = [
  NON_VOLATILE | BOOTSERVICE_ACCESS | RUNTIME_ACCESS,
  NON_VOLATILE | BOOTSERVICE_ACCESS,
  BOOTSERVICE_ACCESS | RUNTIME_ACCESS,
  NON_VOLATILE | BOOTSERVICE_ACCESS | RUNTIME_ACCESS | APPEND_WRITE,
  0,
  0x20 | 7,
  0xff
]

/** A message to management mode that is nearly good. @param int an integer between two, both included */
export const uefiMessage = (int: (from: number, to: number) => number): Uint8Array => {
  const oneOf = <T>(values: ReadonlyArray<T>): T => values[int(0, values.length - 1)]!
  const named: VariableName = {
    name: oneOf(NAMES),
    guid: oneOf([UEFI_VENDOR.GLOBAL, UEFI_VENDOR.GLOBAL, UEFI_VENDOR.IMAGE_SECURITY_DATABASE])
  }
  const message = make()
  if (int(0, 7) === 0) message[int(0, message.length - 1)] = int(0, 255)
  return message

  function make(): Uint8Array {
    switch (int(0, 9)) {
      case 0:
      case 1:
      case 2:
        return getVariableMessage(named, oneOf([0, 10, 100, 1000]))
      case 3:
      case 4:
        return setVariableMessage({
          ...named,
          attributes: oneOf(ATTRIBUTES),
          data: new Uint8Array(oneOf([0, 1, 100, 1500])).fill(int(0, 255))
        })
      case 5:
        return nextNameMessage(oneOf([named, { ...named, name: "" }]), oneOf([2, 40, 200]))
      case 6:
        return queryInfoMessage(oneOf(ATTRIBUTES))
      case 7:
        return lockVariableMessage(named)
      case 8:
        return oneOf([
          payloadSizeMessage(),
          registerPolicyMessage({ ...named, maxSize: int(0, 200) }),
          policyMessage(oneOf(Object.values(POLICY_COMMAND)), new Uint8Array(16))
        ])
      default:
        return eventMessage(oneOf(Object.values(MM_RECEIVER)))
    }
  }
}

const BOOT_SERVICES = EFI_VARIABLE.NON_VOLATILE | EFI_VARIABLE.BOOTSERVICE_ACCESS

/** Variables of the firmware's that the operating system is not to see, when it has taken over. */
export const hideVariables = ({ variables }: ManagementMode, secrets: Secrets): void => {
  for (const name of HIDDEN_VARIABLES) {
    const data = secrets.bytes(100)
    variables.set({ name, guid: UEFI_VENDOR.GLOBAL, attributes: BOOT_SERVICES, data })
  }
  variables.exitBootServices()
}
