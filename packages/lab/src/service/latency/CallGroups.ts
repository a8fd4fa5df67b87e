import { type TpmService, tpmService } from "../../tpm/GuestTpm.ts"
import type { TpmBackEnd } from "../../tpm/Swtpm.ts"
import { acceptanceCalls } from "./AcceptanceCalls.ts"
import { apicCalls } from "./ApicCalls.ts"
import { attestationCalls } from "./AttestationCalls.ts"
import type { CallGroup, MeasuredGroup } from "./CallGroup.ts"
import { coreCalls } from "./CoreCalls.ts"
import { levelCalls } from "./LevelCalls.ts"
import { migrationCalls } from "./MigrationCalls.ts"
import { uefiVariableCalls } from "./UefiVariableCalls.ts"
import { vtpmCalls } from "./VtpmCalls.ts"

/** Makes a group for one guest; a service with a state of its own starts anew in each. */
type MakeGroup = (tpm: TpmService | null) => ReadonlyArray<CallGroup>

/** Every protocol of the table, in its order. One that is added here is in `service latency` and docs/findings.md. */
const GROUPS: ReadonlyArray<MakeGroup> = [
  () => [coreCalls],
  () => [acceptanceCalls],
  () => [attestationCalls],
  (tpm) => (tpm === null ? [] : [vtpmCalls(tpm)]),
  () => [uefiVariableCalls()],
  () => [apicCalls],
  levelCalls
]

/** Those that run something of their own. */
export const MEASURED_GROUPS: ReadonlyArray<MeasuredGroup> = [migrationCalls]

/** The groups for one strategy's guests. @param tpm null where there is none: then its calls are left out */
export const callGroups = (tpm: TpmBackEnd | null): ReadonlyArray<CallGroup> => {
  const service = tpm === null ? null : tpmService(tpm)
  return GROUPS.flatMap((make) => make(service))
}
