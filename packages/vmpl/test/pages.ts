import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { CR0, CR4, EFER, PTE, PTE_HI } from "../src/index.ts"
import { ASID, ENTRY, GPA, type MachineOptions, PFN, TestMachine, type VmsaOptions } from "./machine.ts"

const TWO_32 = 0x1_0000_0000
/** System and guest frames of the guest's page tables, one per level: 4, 3, 2, 1. */
const TABLE_PFN = [0, 44, 43, 42, 41] as const
const TABLE_GFN = [0, 0x144, 0x143, 0x142, 0x141] as const
export const tablePfn = (level: number): number => TABLE_PFN[level]!
export const tableGpa = (level: number): number => TABLE_GFN[level]! * PAGE_SIZE

/** A linear address whose index differs at every level, and one of the upper half. */
export const LINEAR = 0x1234_5678_9000
export const UPPER = -0x7654_3210_f000
/** Where the code page is mapped. */
export const CODE_LINEAR = 0x40_0000

/** A page-table entry, as halves. */
export interface Entry {
  readonly lo: number
  readonly hi: number
}

export const pte = (gpa: number, lo: number, hi: number = PTE_HI.C): Entry => ({
  lo: (gpa | lo) >>> 0,
  hi: (Math.floor(gpa / TWO_32) | hi) >>> 0
})
/** What the tests' mappings allow unless they say otherwise. */
export const FULL = PTE.P | PTE.W | PTE.U

export const indexAt = (linear: number, level: number): number => Math.floor(linear / 2 ** (9 * level + 3)) & 511

/** A guest in long mode with paging, its tables empty but for the path to its code. */
export class PagedMachine extends TestMachine {
  constructor(vmsa: VmsaOptions = {}, options: MachineOptions = {}) {
    super(options)
    for (let level = 4; level > 0; level--) {
      this.give(tablePfn(level), tableGpa(level) / PAGE_SIZE)
      this.npt.map(tableGpa(level) / PAGE_SIZE, tablePfn(level))
      this.memory.replace(tablePfn(level), ASID, null)
    }
    this.mapLinear(CODE_LINEAR, pte(GPA.code, FULL))
    this.repaged(PFN.vmsa, vmsa)
  }

  /** The VMSA with paging on, other fields as given. */
  repaged(pfn: number, vmsa: VmsaOptions): void {
    this.putVmsa(pfn, {
      cr0: CR0.PG | CR0.WP | 1,
      cr3: tableGpa(4),
      cr4: CR4.PAE,
      efer: EFER.LMA | EFER.NXE,
      codeBase: CODE_LINEAR,
      ...vmsa
    })
  }

  /** Writes one entry of the path to a linear address. */
  putEntry(linear: number, level: number, { lo, hi }: Entry): void {
    const view = this.memory.write(tablePfn(level), ASID)
    view.setUint32(indexAt(linear, level) * 8, lo, true)
    view.setUint32(indexAt(linear, level) * 8 + 4, hi, true)
  }

  entry(linear: number, level: number): Entry {
    const view = this.memory.read(tablePfn(level), ASID)
    const at = indexAt(linear, level) * 8
    return { lo: view.getUint32(at, true), hi: view.getUint32(at + 4, true) }
  }

  /** Maps a linear address through all levels down to `level`, whose leaf is given; upper entries allow everything. */
  mapLinear(linear: number, leaf: Entry, level = 1): void {
    for (let above = 4; above > level; above--) this.putEntry(linear, above, pte(tableGpa(above - 1), FULL))
    this.putEntry(linear, level, leaf)
  }

  /** As vTOM wants them: no C-bits on the paths to these addresses, leaves included. */
  clearCbits(...linears: ReadonlyArray<number>): void {
    for (const linear of linears)
      for (let level = 4; level > 0; level--) {
        const { lo, hi } = this.entry(linear, level)
        this.putEntry(linear, level, { lo, hi: (hi & ~PTE_HI.C) >>> 0 })
      }
  }

  override install(code: Parameters<TestMachine["install"]>[0], linear = CODE_LINEAR + ENTRY): void {
    super.install(code, linear)
  }
}
