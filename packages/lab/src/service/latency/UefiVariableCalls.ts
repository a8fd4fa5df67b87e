import { uefiMm } from "@vmpl-lab/svsm"
import { uefiVariableJobs } from "../UefiVariableJobs.ts"
import type { CallGroup } from "./CallGroup.ts"

/** The one call of the UEFI variable protocol, with some of its messages. A store of its own for each guest. */
export const uefiVariableCalls = (): CallGroup => ({
  protocol: "UEFI variables",
  services: [uefiMm()],
  calls: ({ buffers }) => uefiVariableJobs(buffers)
})
