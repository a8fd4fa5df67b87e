import type { HostThread } from "@vmpl-lab/sim"
import type { Vcpu } from "../Vcpu.ts"
import type { GhcbExit, GhcbRegister } from "./GhcbExit.ts"

/** One event of the page protocol, as KVM validates and serves it. */
export interface GhcbEvent {
  readonly code: number
  readonly name: string
  /** Fields that must be valid beside the three exit fields. */
  readonly needs: ReadonlyArray<GhcbRegister>
  readonly needsAlso?: (exit: GhcbExit) => ReadonlyArray<GhcbRegister>
  /** Only an SNP guest may ask. */
  readonly snp?: boolean
  /** Hypervisor feature without which KVM does not know the event. */
  readonly feature?: number
  /** What else the validator looks at: false is MISSING_INPUT, as KVM answers. */
  readonly accepts?: (exit: GhcbExit) => boolean
  readonly handle: (vcpu: Vcpu, thread: HostThread, exit: GhcbExit) => number
}
