/** What one entry remembers: the frame, its leaf size is not needed any more, and which accesses were found allowed. */
interface TlbEntry {
  readonly pfn: number
  readonly cbit: boolean
  /** Bit per kind of access, those of CPL 3 from bit 8 on. */
  allowed: number
}

const USER = 8

/** Bit of an access in TlbEntry.allowed. */
const accessBit = (kind: number, cpl: number): number => 1 << ((kind & 7) + (cpl === 3 ? USER : 0))

const VMPLS = 4
const CORES_MAX = 0x1_0000

/** Whose entries: one number for ASID, VMPL and physical core. */
const tagOf = (asid: number, vmpl: number, core: number): number => (asid * VMPLS + vmpl) * CORES_MAX + core

/**
 * TLBs of all cores. An entry keeps a translation together with the verdict of the RMP: rights that are taken away later
 * survive in it until a flush, as scenario V4 shows. Tags are ASID, VMPL and core, so no VMPL uses another's entries.
 *
 * One legal behaviour of many: hardware may drop any entry at any time; this one keeps what it has room for and drops
 * the oldest first. Instruction fetches and data share the entries.
 * @spec APM2 15.36.15
 */
export class Tlb {
  readonly #capacity: number
  readonly #tables = new Map<number, Map<number, TlbEntry>>()

  /** @param capacity entries of each ASID, VMPL and core */
  constructor(capacity: number) {
    this.#capacity = capacity
  }

  /** The entry that allows an access, or undefined: then the tables and the RMP are asked. */
  lookup(
    asid: number,
    vmpl: number,
    core: number,
    page: number,
    kind: number,
    cpl: number,
    cbit: boolean
  ): { readonly pfn: number; readonly cbit: boolean } | undefined {
    const entry = this.#tables.get(tagOf(asid, vmpl, core))?.get(keyOf(page, cbit))
    return entry !== undefined && (entry.allowed & accessBit(kind, cpl)) !== 0 ? entry : undefined
  }

  /** Remembers an access that tables and RMP have let pass. `asked` is the C-bit it was made with. */
  insert(
    asid: number,
    vmpl: number,
    core: number,
    page: number,
    kind: number,
    cpl: number,
    asked: boolean,
    found: { readonly pfn: number; readonly cbit: boolean }
  ): void {
    const tag = tagOf(asid, vmpl, core)
    let table = this.#tables.get(tag)
    if (table === undefined) {
      table = new Map()
      this.#tables.set(tag, table)
    }
    const key = keyOf(page, asked)
    const old = table.get(key)
    if (old !== undefined && old.pfn === found.pfn && old.cbit === found.cbit) {
      old.allowed |= accessBit(kind, cpl)
      return
    }
    table.delete(key)
    if (table.size >= this.#capacity) {
      const [oldest] = table.keys()
      table.delete(oldest!)
    }
    table.set(key, { ...found, allowed: accessBit(kind, cpl) })
  }

  /** RMPUPDATE or PSMASH by the host: parts that were looked at flush everything on all cores. */
  flushAll(): void {
    this.#tables.clear()
  }

  /** INVLPGB with TLBSYNC, or TLB_CONTROL in a VMCB: all entries of an ASID; of one core where `core` is given. */
  flushAsid(asid: number, core?: number): void {
    for (let vmpl = 0; vmpl < VMPLS; vmpl++) {
      const first = tagOf(asid, vmpl, 0)
      if (core !== undefined) this.#tables.delete(first + core)
      else
        for (const tag of [...this.#tables.keys()])
          if (tag >= first && tag < first + CORES_MAX) this.#tables.delete(tag)
    }
  }

  /** What a PCPU_ID of 0 asks for at VMRUN: the entries of one VMPL on the core. */
  flushVmpl(asid: number, vmpl: number, core: number): void {
    this.#tables.delete(tagOf(asid, vmpl, core))
  }

  /** Entries held, of all tags. */
  get size(): number {
    let size = 0
    for (const table of this.#tables.values()) size += table.size
    return size
  }
}

const keyOf = (page: number, cbit: boolean): number => page * 2 + (cbit ? 1 : 0)
