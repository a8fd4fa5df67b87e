// @section 2.3, 4.3
import { ACCESS } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"

/** One cached translation of a 4 KiB page, with the rights it had when it was made. */
export interface TlbEntry {
  readonly pfn: number
  /** ASID of the key. */
  readonly key: number
  /** Bits of MAPPING, from the guest's page tables. */
  readonly mapping: number
  /** Verdict of the RMP: bits as `rightOf` gives them. */
  readonly rights: number
}

/** The kinds of access, with the CPL where it matters, of which an entry keeps the RMP's verdict. */
export const TLB_RIGHTS: ReadonlyArray<readonly [kind: number, cpl: number]> = [
  [ACCESS.READ, 0],
  [ACCESS.WRITE, 0],
  [ACCESS.FETCH, 0],
  [ACCESS.FETCH, 3],
  [ACCESS.SHADOW_STACK, 0]
]

export const rightOf = (kind: number, cpl: number): number => (kind === ACCESS.FETCH && cpl === 3 ? 0x100 : 1 << kind)

/** Keys of one context: room for a page number, whether it is a fetch's, and the C-bit. */
const CONTEXT_KEYS = 2 ** 43
const CONTEXTS = 1 << 10
const UPPER_HALF_PAGES = 2 ** 36

/**
 * The TLB of one core. An entry belongs to the ASID, the VMPL and the TLB_ID of the VMSA that it was made for. Fetches
 * and data share the room but no entry, as a fetch is private whatever the C-bit says. Large leaves are cached in pieces
 * of 4 KiB; page tables are not cached; the oldest entry gives way.
 *
 * That is one legal behaviour of many: hardware may drop any entry at any time, and so may keep fewer than this.
 * @spec APM2 15.36.15
 * @spec-silent what TLB_ID and PCPU_ID mean to hardware, beyond the flush when PCPU_ID is 0
 */
export class Tlb {
  /** This core's number in PCPU_ID, nonzero. */
  readonly pcpuId: number
  readonly #capacity: number
  readonly #entries = new Map<number, TlbEntry>()
  /** ASIDs by context number, contexts by their tag. */
  readonly #asids: Array<number> = []
  readonly #contexts = new Map<string, number>()
  #base = 0
  #lastTlbId = 0
  /** ASIDs of INVLPGBs from this core that no TLBSYNC has completed yet. */
  readonly outstanding = new Set<number>()

  constructor(pcpuId: number, capacity: number) {
    this.pcpuId = pcpuId
    this.#capacity = capacity
  }

  get size(): number {
    return this.#entries.size
  }

  /** A TLB_ID that this core has not given out before: under it there are no entries. */
  newTlbId(): number {
    return ++this.#lastTlbId
  }

  /** Entries made and found from now on belong to this tag. */
  enter(asid: number, vmpl: number, tlbId: number): void {
    const tag = `${asid}.${vmpl}.${tlbId}`
    let context = this.#contexts.get(tag)
    if (context === undefined) {
      if (this.#contexts.size === CONTEXTS) this.flush()
      context = this.#contexts.size
      this.#contexts.set(tag, context)
      this.#asids[context] = asid
    }
    this.#base = context * CONTEXT_KEYS
  }

  lookup(address: number, kind: number, cbit: boolean): TlbEntry | undefined {
    return this.#entries.get(this.#keyOf(address, kind, cbit))
  }

  fill(address: number, kind: number, cbit: boolean, entry: TlbEntry): void {
    const key = this.#keyOf(address, kind, cbit)
    if (!this.#entries.has(key) && this.#entries.size === this.#capacity) {
      for (const oldest of this.#entries.keys()) {
        this.#entries.delete(oldest)
        break
      }
    }
    this.#entries.set(key, entry)
  }

  /** Drops everything, and forgets all tags: the VMSA in guest mode must `enter` again. */
  flush(): void {
    this.#entries.clear()
    this.#contexts.clear()
  }

  /** Drops all entries but keeps the tags. */
  flushEntries(): void {
    this.#entries.clear()
  }

  flushAsid(asid: number): void {
    for (const key of this.#entries.keys())
      if (this.#asids[Math.floor(key / CONTEXT_KEYS)] === asid) this.#entries.delete(key)
  }

  /** Drops the entries of the tag that is entered. */
  flushContext(): void {
    for (const key of this.#entries.keys())
      if (key >= this.#base && key < this.#base + CONTEXT_KEYS) this.#entries.delete(key)
  }

  /** Drops what the tag that is entered has of one page. */
  flushPage(address: number): void {
    for (const kind of [ACCESS.READ, ACCESS.FETCH])
      for (const cbit of [false, true]) this.#entries.delete(this.#keyOf(address, kind, cbit))
  }

  #keyOf(address: number, kind: number, cbit: boolean): number {
    const page = Math.floor(address / PAGE_SIZE)
    const number = page < 0 ? page + UPPER_HALF_PAGES : page
    return this.#base + number * 4 + (kind === ACCESS.FETCH ? 2 : 0) + (cbit ? 1 : 0)
  }
}

/** The TLBs of all cores of a machine: where flushes are broadcast. */
export class TlbSet {
  readonly cores: Array<Tlb> = []
  readonly #capacity: number

  /** @param capacity entries of each core, at least 1 */
  constructor(capacity: number) {
    if (!Number.isSafeInteger(capacity) || capacity < 1) throw new RangeError(`a TLB of ${capacity} entries`)
    this.#capacity = capacity
  }

  /** The TLB of one more core. */
  attach(): Tlb {
    const tlb = new Tlb(this.cores.length + 1, this.#capacity)
    this.cores.push(tlb)
    return tlb
  }

  /** Drops all entries of all cores. */
  flush(): void {
    for (const tlb of this.cores) tlb.flushEntries()
  }

  /** TLBSYNC: completes on all cores what `from` has sent with INVLPGB. */
  synchronize(from: Tlb): void {
    for (const asid of from.outstanding) for (const tlb of this.cores) tlb.flushAsid(asid)
    from.outstanding.clear()
  }
}
