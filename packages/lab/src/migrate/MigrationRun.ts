import type { Tracking } from "./MigrateOptions.ts"

/** One pass over the pages that had to go. */
export interface MigrationRound {
  readonly pages: number
  /** Pages that the guest had written meanwhile. */
  readonly dirtied: number
  readonly ns: number
}

/** What became of one migration. Times are virtual ns, of the source's clock. */
export interface MigrationRun {
  readonly strategy: string
  readonly tracking: Tracking
  /** Rounds while the guest ran. */
  readonly rounds: ReadonlyArray<MigrationRound>
  /** Pages that went after it had stopped. */
  readonly lastPages: number
  /** Sealed bytes on the link. */
  readonly bytes: number
  /** Write faults that VMPL0 served. */
  readonly dirtyFaults: number
  /** VMPL switches from START on, on either side, the agent's calls among them. */
  readonly switches: { readonly source: number; readonly target: number }
  /** From START to the guest's first instruction on the target; null where there was none. */
  readonly totalNs: number | null
  /** From the guest's last instruction on the source to its first one on the target; null where there was none. */
  readonly downtimeNs: number | null
  /** Writes in a second, of all vCPUs: before, and from START to the stop. */
  readonly writesPerSecond: { readonly before: number; readonly during: number }
  /** SHA-256 of the guest that stands still, hex, on both sides; null where it did not get so far. */
  readonly sourceDigest: string | null
  readonly targetDigest: string | null
  /** SHA-256 over the pages that the guest wrote, hex, when it had done all its work; null where it did not. */
  readonly guestDigest: string | null
  /** Writes of each vCPU on both machines together, the agent's first. */
  readonly writes: ReadonlyArray<number>
  /** By which result the target refused, or null. */
  readonly refusal: string | null
  /** Where the guest is in the end. */
  readonly goesOn: "source" | "target" | "nowhere"
}
