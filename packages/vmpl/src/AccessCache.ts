import type { Hardware, Processor } from "./Processor.ts"

/** Entries of a table: a power of two. */
const ENTRIES = 4096

/** Kinds of access that are remembered: the value of ACCESS, below 4. With it and the C-bit the level makes the tag. */
const KINDS = 4

/** Set apart from each other what one page is asked for, in the table. */
const SPREAD = 509

/**
 * Outcomes of the access check, so that the same access need not be checked anew: a shortcut of the simulator and no
 * TLB, as it never answers what the check would not answer now. An entry holds while nothing has changed that the check
 * looks at: each of the nested page table, the RMP and memory counts its changes, and their sum stands in the entry.
 *
 * One table belongs to one nested page table. It serves guests with SNP at CPL 0 that neither page nor have a TLB,
 * virtual top of memory or VmplSSS.
 */
export class AccessCache {
  readonly #tags = new Float64Array(ENTRIES).fill(-1)
  readonly #changes = new Float64Array(ENTRIES)
  readonly #asids = new Int32Array(ENTRIES)
  readonly #views: Array<DataView | null> = new Array<DataView | null>(ENTRIES).fill(null)

  /** The page of an access that would pass now, or null where that is not known. */
  find(cpu: Processor, gfn: number, kind: number, cbit: boolean): DataView | null {
    const ask = (cpu.vmpl * KINDS + kind) * 2 + (cbit ? 1 : 0)
    const at = (gfn + ask * SPREAD) & (ENTRIES - 1)
    if (this.#tags[at] !== gfn * 32 + ask || this.#asids[at] !== cpu.asid) return null
    return this.#changes[at] === changesOf(cpu.hardware, cpu.npt!.changes) ? this.#views[at]! : null
  }

  /** An access has passed. */
  keep(cpu: Processor, gfn: number, kind: number, cbit: boolean, view: DataView): void {
    const ask = (cpu.vmpl * KINDS + kind) * 2 + (cbit ? 1 : 0)
    const at = (gfn + ask * SPREAD) & (ENTRIES - 1)
    this.#tags[at] = gfn * 32 + ask
    this.#asids[at] = cpu.asid
    this.#changes[at] = changesOf(cpu.hardware, cpu.npt!.changes)
    this.#views[at] = view
  }
}

const changesOf = ({ rmp, memory }: Hardware, nested: number): number => rmp.changes + memory.changes + nested
