import { AccessCheck, isHypervisorOwned } from "./AccessCheck.ts"
import { hasPagesOf } from "./AsidUse.ts"
import { digestInto } from "./Digest.ts"
import { FAULT } from "./Fault.ts"
import { PAGE_4K, type PageSize } from "./PageSize.ts"
import { type PageState, stateOf } from "./PageState.ts"
import { psmash } from "./Psmash.ts"
import { pvalidate } from "./Pvalidate.ts"
import { RETURN_CODE } from "./ReturnCode.ts"
import { rmpadjust } from "./Rmpadjust.ts"
import { firmwareSet, type RmpEntry, readEntry, subpageCount } from "./RmpEntry.ts"
import type { RmpLayout } from "./RmpLayout.ts"
import { type RmpoptFunction, rmpopt, rmpoptBaseFrame } from "./Rmpopt.ts"
import { type RmpQueryResult, rmpquery } from "./Rmpquery.ts"
import { decodeRawEntry, encodeRawEntry } from "./RmpRaw.ts"
import { type RmpReadResult, rmpread } from "./Rmpread.ts"
import { gfnOf, indexOf, type RmpOptions, RmpTable, restoreEntries, rowOf, SNAPSHOT, saveEntries } from "./RmpTable.ts"
import { hostInstructionByGuest, rmpupdate } from "./Rmpupdate.ts"
import type { Switches } from "./Switches.ts"
import { checkVmrunVmsa, isInUse, setInUse } from "./VmrunCheck.ts"

type Bit = boolean | 0 | 1

/**
 * The Reverse Map Table: one entry per 4 KiB page of system memory, the instructions that change it and the checks made
 * on it. Pages are named by system (`pfn`) and guest (`gfn`) frame number. Instructions return EAX, with CARRY, or a
 * fault (`isFault`); checks return FAULT.NONE or a fault. See the file of each for results and sources.
 * @spec APM2 15.36.3
 */
export class Rmp extends AccessCheck {
  private rmpoptBase: number | null = null
  /** Grows with whatever may change the outcome of a check: while it stays, equal checks have equal outcomes. */
  changes = 0

  constructor(options: RmpOptions) {
    super(new RmpTable(options))
  }

  get switches(): Switches {
    return this.table.switches
  }

  /** Which pages have an entry, and where the entries lie. */
  get layout(): RmpLayout {
    return this.table.layout
  }

  /** 4 KiB pages of a 2 MiB page: 512 but in a machine made small to be explored. */
  get pagesPer2M(): number {
    return this.table.pagesPer2M
  }

  /** Number of privilege levels. @spec APM2 CPUID 8000_001F EBX[15:12] */
  get vmpls(): number {
    return this.table.vmpls
  }

  /** Number of 4 KiB pages from the first covered to the last. */
  get coveredPages(): number {
    return this.table.pages
  }

  /** Bytes of host memory that the table holds on to. */
  get bytes(): number {
    return this.table.bytes
  }

  /** First frame that has an entry. */
  get basePfn(): number {
    return this.table.basePfn
  }

  isCovered(pfn: number): boolean {
    return indexOf(this.table, pfn) >= 0
  }

  rmpupdate(pfn: number, assigned: Bit, size: PageSize, immutable: Bit, gfn: number, asid: number): number {
    this.changes++
    const isAssigned = assigned === true || assigned === 1
    const isImmutable = immutable === true || immutable === 1
    return rmpupdate(this.table, pfn, isAssigned, size, isImmutable, gfn, asid)
  }

  psmash(pfn: number): number {
    this.changes++
    return psmash(this.table, pfn)
  }

  rmpread(pfn: number, out?: RmpReadResult): number {
    return rmpread(this.table, pfn, out)
  }

  /** RMPUPDATE or PSMASH executed by a guest. */
  hostInstructionByGuest(): number {
    return hostInstructionByGuest(this.table)
  }

  /** RMPREAD executed by a guest. */
  rmpreadByGuest(): number {
    return RETURN_CODE.FAIL_PERMISSION
  }

  /** WRMSR of RMPOPT_BASE by the host. */
  setRmpoptBase(value: number): void {
    this.rmpoptBase = rmpoptBaseFrame(value)
  }

  rmpopt(pfn: number, operation: RmpoptFunction): number {
    this.changes++
    return rmpopt(this.table, this.rmpoptBase, pfn, operation)
  }

  /** RMPCHKD, of which only the encoding is public. @spec-silent U11 */
  rmpchkd(): number {
    return FAULT.UD
  }

  pvalidate(
    asid: number,
    vmpl: number,
    gfn: number,
    pfn: number,
    nptSize: PageSize,
    size: PageSize,
    validate: Bit
  ): number {
    this.changes++
    return pvalidate(this.table, asid, vmpl, gfn, pfn, nptSize, size, validate === true || validate === 1)
  }

  rmpadjust(
    asid: number,
    vmpl: number,
    gfn: number,
    pfn: number,
    nptSize: PageSize,
    size: PageSize,
    targetVmpl: number,
    mask: number,
    vmsa: Bit
  ): number {
    this.changes++
    return rmpadjust(this.table, asid, vmpl, gfn, pfn, nptSize, size, targetVmpl, mask, vmsa === true || vmsa === 1)
  }

  rmpquery(
    asid: number,
    vmpl: number,
    gfn: number,
    pfn: number,
    nptSize: PageSize,
    targetVmpl: number,
    out?: RmpQueryResult
  ): number {
    return rmpquery(this.table, asid, vmpl, gfn, pfn, nptSize, targetVmpl, out)
  }

  checkVmrunVmsa(asid: number, gfn: number, pfn: number): boolean {
    return checkVmrunVmsa(this.table, asid, gfn, pfn)
  }

  /** The check of a VMCB, an AVIC backing page, VM_HSAVE_PA or a non-SNP VMSA. @spec APM2 15.36.10 table 15-41 */
  checkHypervisorOwned(pfn: number): boolean {
    return isHypervisorOwned(this.table, pfn, PAGE_4K)
  }

  markInUse(pfn: number): void {
    setInUse(this.table, pfn, true)
  }

  clearInUse(pfn: number): void {
    setInUse(this.table, pfn, false)
  }

  isInUse(pfn: number): boolean {
    return isInUse(this.table, pfn)
  }

  /** Stored Guest_Physical_Address of a page in frames, 0 where it is not covered. */
  gfnAt(pfn: number): number {
    const index = indexOf(this.table, pfn)
    return index < 0 ? 0 : gfnOf(this.table, rowOf(this.table, index))
  }

  entry(pfn: number): RmpEntry {
    return readEntry(this.table, pfn)
  }

  /**
   * Subpage_Count of a page's region: assigned pages beside the first. 0 for a 2 MiB page, whose inner pages are its own.
   */
  subpageCount(pfn: number): number {
    return subpageCount(this.table, pfn)
  }

  /** The raw 16 bytes of a page's entry, which lie at `layout.entryAddress`. Subpage_Count only in a region's first. */
  rawEntry(pfn: number): Uint8Array {
    const isFirst = pfn % this.table.pagesPer2M === 0
    return encodeRawEntry(this.entry(pfn), isFirst ? this.subpageCount(pfn) : 0)
  }

  /**
   * Raw bytes reach an entry behind the instructions' back: by the AMD-SP, or by an attacker where nothing protects the
   * RMP. Subpage_Count and Lock follow from the entries and are not taken over.
   */
  setRawEntry(pfn: number, bytes: Uint8Array): void {
    this.changes++
    firmwareSet(this.table, pfn, decodeRawEntry(bytes).entry)
  }

  stateOf(pfn: number): PageState {
    return stateOf(this.table, pfn)
  }

  /** Whether any page is assigned to this ASID of a guest. */
  hasPagesOf(asid: number): boolean {
    return hasPagesOf(this.table, asid)
  }

  firmwareSet(pfn: number, fields: Partial<RmpEntry>): void {
    this.changes++
    firmwareSet(this.table, pfn, fields)
  }

  digestInto(update: (bytes: Uint8Array) => void): void {
    digestInto(this.table, update)
  }

  /** Words that `saveEntries` writes. */
  get snapshotWords(): number {
    return this.table.pages * SNAPSHOT.WORDS
  }

  /** Copies all stored entries, to be put back with `restoreEntries`. For machines small enough to be explored. */
  saveEntries(into: Int32Array): void {
    saveEntries(this.table, into)
  }

  restoreEntries(from: Int32Array): void {
    this.changes++
    restoreEntries(this.table, from)
  }
}
