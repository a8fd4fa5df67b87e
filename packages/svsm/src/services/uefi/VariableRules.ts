import { EFI_STATUS, MM_VARIABLE, POLICY_COMMAND } from "@vmpl-lab/guest"

/**
 * Where two variable services differ: EDK2's, which serves management mode on real machines, and the one that
 * COCONUT-SVSM has inside, the crate virtfw-varstore. Handlers ask here and never for a behaviour's name.
 */
export interface VariableRules {
  /** Functions of MM_VARIABLE that are served; others are EFI_UNSUPPORTED. */
  readonly functions: ReadonlySet<number>
  /** Commands of POLICY_COMMAND that are served; others are EFI_UNSUPPORTED. */
  readonly policyCommands: ReadonlySet<number>
  /** The status left in a message too short or too long for its function; null leaves the message as it is. */
  readonly misfit: number | null
  /** The status for a name or data that leaves the message. */
  readonly outsideOfMessage: number
  /** The status for a name without an end. */
  readonly endlessName: number
  /** What is read, or written, of a variable for boot services only after ExitBootServices. */
  readonly hiddenRead: number
  readonly hiddenWrite: number
  /** The status for the deletion of what is not there. */
  readonly absentDeletion: number
  /** APPEND_WRITE adds bytes to any variable; else only signature databases take it. */
  readonly appendsAnything: boolean
  /** An authenticated write is verified outside of setup mode too; else it is refused there. */
  readonly verifiesInUserMode: boolean
  /** Policies are locked at the end of DXE, else by their command only. */
  readonly locksPoliciesWithDxe: boolean
  /** A variable tells shim not to reboot: its variables would not outlive that. */
  readonly tellsShimNotToReboot: boolean
}

/**
 * EDK2. Source: tianocore/edk2 c5aa7e7d, MdeModulePkg/Universal/Variable/RuntimeDxe/{VariableSmm,Variable}.c,
 * SecurityPkg/Library/AuthVariableLib/AuthService.c, MdeModulePkg/Library/VarCheckPolicyLib/VarCheckPolicyLib.c. Its
 * runtime cache lies in memory of the guest's choice outside of the message; there is none here.
 */
export const EDK2_RULES: VariableRules = {
  functions: new Set<number>([
    MM_VARIABLE.GET_VARIABLE,
    MM_VARIABLE.GET_NEXT_VARIABLE_NAME,
    MM_VARIABLE.SET_VARIABLE,
    MM_VARIABLE.QUERY_VARIABLE_INFO,
    MM_VARIABLE.READY_TO_BOOT,
    MM_VARIABLE.EXIT_BOOT_SERVICE,
    MM_VARIABLE.LOCK_VARIABLE,
    MM_VARIABLE.VAR_CHECK_VARIABLE_PROPERTY_SET,
    MM_VARIABLE.VAR_CHECK_VARIABLE_PROPERTY_GET,
    MM_VARIABLE.GET_PAYLOAD_SIZE,
    MM_VARIABLE.GET_RUNTIME_CACHE_INFO
  ]),
  policyCommands: new Set<number>(Object.values(POLICY_COMMAND)),
  misfit: null,
  outsideOfMessage: EFI_STATUS.ACCESS_DENIED,
  endlessName: EFI_STATUS.ACCESS_DENIED,
  hiddenRead: EFI_STATUS.NOT_FOUND,
  hiddenWrite: EFI_STATUS.WRITE_PROTECTED,
  absentDeletion: EFI_STATUS.NOT_FOUND,
  appendsAnything: true,
  verifiesInUserMode: true,
  locksPoliciesWithDxe: true,
  tellsShimNotToReboot: false
}

/**
 * virtfw-varstore 0.6, which has these functions and does not verify signatures yet. Source: its documentation for that;
 * for the statuses the variable store of the same author in QEMU, hw/uefi/var-service-{vars,policy}.c, which the crate
 * is to replace: that they agree is an inference. COCONUT-SVSM, kernel/src/protocols/uefivars.rs for shim's variable.
 */
export const VIRTFW_RULES: VariableRules = {
  functions: new Set<number>([
    MM_VARIABLE.GET_VARIABLE,
    MM_VARIABLE.GET_NEXT_VARIABLE_NAME,
    MM_VARIABLE.SET_VARIABLE,
    MM_VARIABLE.QUERY_VARIABLE_INFO,
    MM_VARIABLE.READY_TO_BOOT,
    MM_VARIABLE.EXIT_BOOT_SERVICE,
    MM_VARIABLE.LOCK_VARIABLE,
    MM_VARIABLE.GET_PAYLOAD_SIZE
  ]),
  policyCommands: new Set<number>([POLICY_COMMAND.IS_ENABLED, POLICY_COMMAND.REGISTER, POLICY_COMMAND.LOCK]),
  misfit: EFI_STATUS.BAD_BUFFER_SIZE,
  outsideOfMessage: EFI_STATUS.BAD_BUFFER_SIZE,
  endlessName: EFI_STATUS.INVALID_PARAMETER,
  hiddenRead: EFI_STATUS.ACCESS_DENIED,
  hiddenWrite: EFI_STATUS.ACCESS_DENIED,
  absentDeletion: EFI_STATUS.SUCCESS,
  appendsAnything: false,
  verifiesInUserMode: false,
  locksPoliciesWithDxe: false,
  tellsShimNotToReboot: true
}
