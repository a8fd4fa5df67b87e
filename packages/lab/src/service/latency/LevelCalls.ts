import { SVSM_RESULT } from "@vmpl-lab/guest"
import { handledService, type ServeCall } from "@vmpl-lab/svsm"
import type { ClientLevels } from "../../tpm/ClientWork.ts"
import { type CallGroup, callJob } from "./CallGroup.ts"

/** A protocol of the kit's own range that nobody else has. */
const PROTOCOL = 0x4000_01ff

/** A call that does nothing: what is left is the way. */
// biome-ignore lint/correctness/useYield: a program without a step
const empty: ServeCall = function* () {
  return SVSM_RESULT.SUCCESS
}

const between = (levels: ClientLevels): CallGroup => {
  const isAt0 = levels.serviceVmpl === 0
  const job = callJob(PROTOCOL, 0, {})
  return {
    protocol: "any service",
    levels,
    services: isAt0 ? [handledService(PROTOCOL, { MIN: 1, MAX: 1 }, empty)] : [],
    levelCalls: new Map([[PROTOCOL, empty]]),
    calls: () => [{ name: `empty call, VMPL${levels.vmpl} to VMPL${levels.serviceVmpl}`, job: () => job }]
  }
}

/** An empty call between other levels than VMPL2 and VMPL0. */
export const levelCalls = (): ReadonlyArray<CallGroup> => [
  between({ vmpl: 1, serviceVmpl: 0 }),
  between({ vmpl: 3, serviceVmpl: 0 }),
  between({ vmpl: 2, serviceVmpl: 1 }),
  between({ vmpl: 3, serviceVmpl: 1 })
]
