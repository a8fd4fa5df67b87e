import type { AgentCommand } from "@vmpl-lab/guest"
import type { Strategy } from "@vmpl-lab/hv-strategies"
import type { Profile } from "@vmpl-lab/sim"
import type { LinkOptions, Message } from "./Link.ts"

/** Who finds the pages that the guest writes while it moves. */
export const TRACKINGS = ["vmpl-write-right", "nested-page-table"] as const
export type Tracking = (typeof TRACKINGS)[number]

/** One call of the migration service as the guest saw it, virtual ns, with the part that was switches between VMPLs. */
export interface MigrationCallTime {
  readonly side: "source" | "target"
  readonly kind: AgentCommand["kind"] | "park"
  readonly result: number
  /** RDX as it was returned: pages, for most calls. */
  readonly rdx: number
  readonly ns: number
  readonly switchNs: number
}

/** How a guest is moved. */
export interface MigrateOptions {
  readonly strategy: Strategy
  readonly tracking: Tracking
  readonly profile: Profile
  readonly seed: number
  /** Pages that the guest writes to. */
  readonly pages: number
  /** vCPUs that write; the agent's comes beside them. */
  readonly vcpus: number
  /** Writes of one vCPU in a second, as far as nothing holds it up. */
  readonly writesPerSecond: number
  /** After so many writes a vCPU has the SVSM validate or rescind a page of its own, in turn; never, if left out. */
  readonly callEvery?: number
  readonly link: LinkOptions
  /** The guest is stopped when a round leaves at most so many pages, or after so many rounds. */
  readonly threshold: number
  readonly maxRounds: number
  /** Virtual ns that the guest writes before, which its slow-down is compared with. */
  readonly warmUpNs: number
  /** Writes of each vCPU on the other machine. */
  readonly writesAfter: number
  /** All memory is hashed when the guest has stopped. The default is so where the host tracks. */
  readonly rehash?: boolean
  /** The strategy of the other machine; the same, if left out. */
  readonly targetStrategy?: Strategy
  /** Observer of the guest's writes, 4 bytes each, on whichever machine. */
  readonly wrote?: (apicId: number, gpa: number, value: number) => void
  /** Observer of the calls that the SVSMs of both machines serve. */
  readonly called?: (call: MigrationCallTime) => void
  /** What a host says is dirty in place of what is. */
  readonly tells?: (gfns: ReadonlyArray<number>) => ReadonlyArray<number>
  /** What a carrier makes of each side's offer for a key. */
  readonly introduces?: (offer: Uint8Array, side: "source" | "target") => Uint8Array
  /** What a carrier brings to the target in place of each message; that message alone, if left out. */
  readonly carries?: (message: Message) => ReadonlyArray<Message>
}
