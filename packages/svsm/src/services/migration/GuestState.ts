import type { SvsmState } from "../../State.ts"
import type { PageRun } from "./MovedPages.ts"

/** One level of one vCPU. */
export interface MovedVcpu {
  readonly apicId: number
  readonly vmpl: number
  readonly vmsaGpa: number
  readonly caGpa: number
}

/** What the SVSM knows of its guest, as the last record carries it. */
export interface GuestState {
  /** Where the guest's memory is: equal on both sides. */
  readonly layout: string
  /** VMSAs but for the agent's; their contents come before this, in the same order. */
  readonly vcpus: ReadonlyArray<MovedVcpu>
  /** Pages that exist, and SHA-256 over all of them as they were when the guest had stopped, hex. */
  readonly pages: ReadonlyArray<PageRun>
  readonly memory: string
  /** GFNs that the guest has deposited, with the level that did. */
  readonly deposited: ReadonlyArray<readonly [gfn: number, vmpl: number]>
  readonly own: { readonly gpa: number; readonly size: number }
}

/** What both sides must have in common, as text. */
export const layoutOf = ({ parameters, startUpFeatures, behaviour }: SvsmState): string => {
  const { vcpus, ramSize, highRam, guestVmpl, svsm, firmware, secretsGpa, cpuidGpa } = parameters
  const parts = { vcpus, ramSize, highRam, guestVmpl, svsm, firmware, secretsGpa, cpuidGpa, startUpFeatures }
  return JSON.stringify({ ...parts, behaviour: behaviour.name })
}

export const encodeState = (state: GuestState): Uint8Array => new TextEncoder().encode(JSON.stringify(state))

/** Only bytes that the other SVSM has sealed come here. */
export const decodeState = (bytes: Uint8Array): GuestState => JSON.parse(new TextDecoder().decode(bytes)) as GuestState
