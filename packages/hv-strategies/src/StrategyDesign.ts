/**
 * What sets a strategy apart and no run shows by itself. docs/strategies.md is made from it, together with what runs do
 * show: objects, counters, and the answers that guests get.
 */
export interface StrategyDesign {
  /** The series that it follows, or derived where none does it for SNP. */
  readonly status: "published" | "derived"
  readonly source: string
  /** Where the switch takes place. */
  readonly switchedIn: string
  /** What each level has of its own. */
  readonly perLevel: string
  /** What the levels of a guest vCPU share. */
  readonly shared: string
  /** What software saves and loads on a switch; the VMSA's part is the hardware's. */
  readonly saved: string
  /** AP creation at a level for which nothing exists yet. */
  readonly missingOnCreate: string
  readonly features: string
  /** Who makes a more privileged level run when an event comes for it. */
  readonly wakes: string
  /** Why VMRUN flushes the TLB after a switch on one core. */
  readonly tlb: string
  /** What the source does not say, and how it is decided here. */
  readonly unconfirmed: ReadonlyArray<string>
}

/** The parts that strategies with a VMCB per level have in common. */
export const OTHER_VMCB = "another VMCB of the same ASID: flush"

export const INJECTION_MODE = "injection mode as in the level's first VMSA; the other bits may differ"
