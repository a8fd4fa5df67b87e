import { MM_RECEIVER } from "@vmpl-lab/guest"
import { type PolicyDump, servePolicies } from "./MmPolicy.ts"
import { serveVariables } from "./MmVariable.ts"
import { VariableService, type VariableServiceOptions } from "./VariableService.ts"

/** Management mode of one guest: who its messages reach. */
export class ManagementMode {
  readonly variables: VariableService
  readonly #dump: PolicyDump = { bytes: null }

  constructor(options: VariableServiceOptions) {
    this.variables = new VariableService(options)
  }

  /**
   * Hands a message to its receiver; one that nobody receives stays as it is.
   * @param message bytes behind the header, the SVSM's own copy: changed in place
   * @returns how many of them make the answer, from the start
   */
  dispatch(receiver: string, message: Uint8Array): number {
    switch (receiver) {
      case MM_RECEIVER.VARIABLE:
        return serveVariables(this.variables, message)
      case MM_RECEIVER.VARIABLE_POLICY:
        return servePolicies(this.variables, message, this.#dump)
      case MM_RECEIVER.END_OF_DXE:
        this.variables.endDxe()
        return 0
      case MM_RECEIVER.READY_TO_BOOT:
        this.variables.readyToBoot()
        return 0
      case MM_RECEIVER.EXIT_BOOT_SERVICES:
        this.variables.exitBootServices()
        return 0
      default:
        return 0
    }
  }
}
