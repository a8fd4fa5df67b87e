import { PAGE_4K, Rmp, type RmpEntry, type Switches } from "@vmpl-lab/rmp"
import {
  EFER_SVME,
  INTERCEPT,
  NESTED_CTL,
  PAGE_SIZE,
  SEGMENT,
  SEV_FEATURES,
  setU64,
  VMCB,
  VMSA,
  VMSA_STATE_SIZE
} from "@vmpl-lab/sev-es"
import { CostTable, Host, PRIMITIVES, type Profile } from "@vmpl-lab/sim"
import {
  type Entry,
  type Hardware,
  HOST_ASID,
  HostMemory,
  type HostMsrs,
  NestedPageTable,
  type Operation,
  type OperationResult,
  PhysicalMemory,
  Processor,
  type Program,
  ProgramMemory,
  runGuest,
  sealVmsa,
  TlbFlushingRmp,
  TlbSet,
  type VmrunOutcome,
  vmrun
} from "../src/index.ts"

/** System frames of the small machine. */
export const PFN = { vmcb: 1, nestedTable: 2, vmsa: 3, vmsa2: 4, code: 5, data: 6, private2: 7, shared: 8, spare: 9 }
/** The guest's frames are elsewhere, so that a mixed-up pair shows. */
export const GFN = { vmsa: 0x103, vmsa2: 0x104, code: 0x105, data: 0x106, private2: 0x107, shared: 0x108, spare: 0x109 }
export const GPA = {
  vmsa: GFN.vmsa * PAGE_SIZE,
  vmsa2: GFN.vmsa2 * PAGE_SIZE,
  code: GFN.code * PAGE_SIZE,
  data: GFN.data * PAGE_SIZE,
  private2: GFN.private2 * PAGE_SIZE,
  shared: GFN.shared * PAGE_SIZE,
  spare: GFN.spare * PAGE_SIZE
}
export const VMCB_PA = PFN.vmcb * PAGE_SIZE
export const NCR3 = PFN.nestedTable * PAGE_SIZE
export const ASID = 1
/** Nanoseconds of every step: time passes, and one step is like another. */
export const STEP_NS = 10
/** Offset of a program's entry in the code page. */
export const ENTRY = 0xff0

const profile: Profile = {
  name: "test",
  machine: "test",
  primitives: Object.fromEntries(
    PRIMITIVES.map((name) => [name, { ns: STEP_NS, low: 0, high: 0, basis: "assumed", source: "none" }])
  ) as unknown as Profile["primitives"],
  sums: []
}

/** What all primitives cost. */
export const profileCosts = (): CostTable => new CostTable(profile, 1)

export interface VmsaOptions {
  readonly vmpl?: number
  readonly rip?: number
  readonly codeBase?: number
  readonly cpl?: number
  /** SEV_FEATURES beside SNPActive. */
  readonly features?: number
  readonly virtualTom?: number
  /** Control registers, where paging is on. EFER gets these bits beside SVME. */
  readonly cr0?: number
  readonly cr3?: number
  readonly cr4?: number
  readonly efer?: number
  readonly rflags?: number
}

export interface MachineOptions {
  /** Entries of each core's TLB; none without. */
  readonly tlb?: number
  /** Frames of memory, 512 without. */
  readonly pages?: number
  readonly switches?: Partial<Switches>
  readonly hostMsrs?: HostMsrs
  /** The CPU keeps integrity values of VMSAs. */
  readonly integrity?: boolean
  readonly nonceSeed?: bigint
}

/** A VMSA as software builds it: what VMRUN asks for, and where to begin. */
export const vmsaBytes = (options: VmsaOptions = {}): Uint8Array => {
  const { vmpl = 0, rip = ENTRY, codeBase = GPA.code, cpl = 0, features = 0, virtualTom = 0 } = options
  const { cr0 = 0, cr3 = 0, cr4 = 0, efer = 0, rflags = 0 } = options
  const bytes = new Uint8Array(PAGE_SIZE)
  const view = new DataView(bytes.buffer)
  setU64(view, VMSA.cs + SEGMENT.base, codeBase)
  setU64(view, VMSA.rip, rip)
  setU64(view, VMSA.efer, EFER_SVME | efer)
  setU64(view, VMSA.sev_features, SEV_FEATURES.SNPActive | features)
  setU64(view, VMSA.virtual_tom, virtualTom)
  for (const [field, value] of Object.entries({ cr0, cr3, cr4, rflags })) {
    setU64(view, VMSA[field as "cr0" | "cr3" | "cr4" | "rflags"], value)
  }
  view.setUint8(VMSA.vmpl, vmpl)
  view.setUint8(VMSA.cpl, cpl)
  return bytes
}

/**
 * One core, one guest: a VMCB, two VMSAs, a code page, two private pages, a shared one, and a spare one that the guest
 * has been given but has not validated.
 */
export class TestMachine {
  readonly rmp: Rmp
  readonly memory: PhysicalMemory
  readonly host: HostMemory
  readonly tlbs: TlbSet | null
  readonly programs = new ProgramMemory()
  readonly npt = new NestedPageTable()
  readonly hardware: Hardware
  /** The core, or one of two: `run` and `vmrun` use it. */
  cpu: Processor
  /** What the guest's programs saw, in order. */
  readonly log: Array<string> = []

  constructor({ tlb, pages = 512, switches = {}, hostMsrs, integrity = false, nonceSeed }: MachineOptions = {}) {
    this.tlbs = tlb === undefined ? null : new TlbSet(tlb)
    this.rmp = this.tlbs === null ? new Rmp({ pages, switches }) : new TlbFlushingRmp({ pages, switches }, this.tlbs)
    this.memory = new PhysicalMemory(pages)
    this.host = new HostMemory(this.memory, this.rmp)
    this.memory.setKey(
      ASID,
      Uint8Array.from({ length: 32 }, (_, i) => i * 3 + 1)
    )
    this.memory.setKey(
      2,
      Uint8Array.from({ length: 32 }, (_, i) => i * 5 + 2)
    )
    for (const name of ["vmsa", "vmsa2", "code", "data", "private2"] as const) this.give(PFN[name], GFN[name])
    for (const name of ["vmsa", "vmsa2"] as const) this.rmp.firmwareSet(PFN[name], { vmsa: true })
    this.rmp.rmpupdate(PFN.spare, true, PAGE_4K, false, GFN.spare, ASID)
    for (const name of ["code", "data", "private2", "shared", "spare"] as const) this.npt.map(GFN[name], PFN[name])
    this.putVmsa(PFN.vmsa, {})
    this.putVmsa(PFN.vmsa2, { vmpl: 2 })
    this.host.write32(VMCB_PA + VMCB.asid, ASID)
    const control = NESTED_CTL.NP_ENABLE | NESTED_CTL.SEV_ENABLE | NESTED_CTL.SEV_ES_ENABLE
    this.host.write64(VMCB_PA + VMCB.nested_ctl, control, 0)
    this.host.write64(VMCB_PA + VMCB.nested_cr3, NCR3, 0)
    this.intercept(INTERCEPT.HLT)
    this.select(PFN.vmsa)
    this.hardware = {
      memory: this.memory,
      host: this.host,
      rmp: this.rmp,
      programs: this.programs,
      nestedTables: new Map([[NCR3, this.npt]]),
      executions: new Map(),
      ...(this.tlbs === null ? {} : { tlbs: this.tlbs }),
      ...(integrity ? { vmsaIntegrity: new Map() } : {}),
      ...(hostMsrs === undefined ? {} : { hostMsrs }),
      ...(nonceSeed === undefined ? {} : { nonceSeed })
    }
    this.cpu = this.newCore()
  }

  /** One more core, with a thread on it. */
  newCore(): Processor {
    return new Processor(this.hardware, new Host(1, profileCosts()).spawn("vcpu", 0))
  }

  /** A page of the guest as the launch leaves it: validated, for VMPL0 alone. */
  give(pfn: number, gfn: number, fields: Partial<RmpEntry> = {}): void {
    const entry: Partial<RmpEntry> = { assigned: true, asid: ASID, gfn, validated: true, perms: [0xf, 0, 0, 0] }
    this.rmp.firmwareSet(pfn, { ...entry, ...fields })
  }

  /** Lets VMPL2 do to a page what the mask says. */
  grant(pfn: number, mask: number): void {
    this.rmp.firmwareSet(pfn, { perms: [0xf, 0, mask, 0] })
  }

  putVmsa(pfn: number, options: VmsaOptions): void {
    this.memory.replace(pfn, ASID, vmsaBytes(options))
  }

  /** The VMSA's bytes under the guest's key, to be looked at and changed. */
  vmsa(pfn: number = PFN.vmsa): DataView {
    return this.memory.write(pfn, ASID)
  }

  /** Points the VMCB at a VMSA. */
  select(pfn: number): void {
    this.host.write64(VMCB_PA + VMCB.vmsa_pa, pfn * PAGE_SIZE, 0)
  }

  /** Sets an intercept in the VMCB. */
  intercept(bit: number, on = true): void {
    const at = VMCB_PA + 4 * (bit >> 5)
    const word = this.host.read32(at)
    this.host.write32(at, (on ? word | (1 << (bit & 31)) : word & ~(1 << (bit & 31))) >>> 0)
  }

  install(entry: Entry, gpa = GPA.code + ENTRY): void {
    this.programs.install(gpa, entry)
  }

  vmrun(vmcb = VMCB_PA): VmrunOutcome {
    return vmrun(this.cpu, vmcb)
  }

  /** VMRUN, then the guest up to its exit or the horizon. @returns the exit code or what kept VMRUN from entering */
  run(horizon = Infinity): VmrunOutcome {
    const outcome = this.vmrun()
    return outcome === "entered" ? runGuest(this.cpu, horizon) : outcome
  }

  /** The guest that VMRUN has entered, up to its exit. */
  resume(): number {
    return runGuest(this.cpu, Infinity)
  }

  /** A field of the VMCB as the host reads it, as lower and upper half. */
  vmcb(field: keyof typeof VMCB): readonly [lo: number, hi: number] {
    const at = VMCB_PA + VMCB[field]
    return [this.host.read32(at), this.host.read32(at + 4)]
  }

  /** A 64-bit field of a VMSA under the guest's key. */
  saved(field: keyof typeof VMSA, pfn: number = PFN.vmsa): readonly [lo: number, hi: number] {
    const view = this.memory.read(pfn, ASID)
    return [view.getUint32(VMSA[field], true), view.getUint32(VMSA[field] + 4, true)]
  }

  /** Registers as the host sees them when it looks into the VMSA. */
  hostViewOfState(pfn: number = PFN.vmsa): Uint8Array {
    return this.host.readPage(pfn).subarray(0, VMSA_STATE_SIZE)
  }

  byte(pfn: number, asid: number, offset = 0): number {
    return this.memory.read(pfn, asid).getUint8(offset)
  }
}

/** A machine whose guest has SEV-ES without SNP: its pages are the host's, the VMSA too. */
export const sevEsMachine = (vmsa: VmsaOptions = {}, options: MachineOptions = {}): TestMachine => {
  const machine = new TestMachine(options)
  for (const pfn of [PFN.vmsa, PFN.code, PFN.data, PFN.private2])
    machine.rmp.firmwareSet(pfn, { assigned: false, validated: false, vmsa: false, asid: 0, gfn: 0 })
  machine.putVmsa(PFN.vmsa, vmsa)
  machine.vmsa().setUint32(VMSA.sev_features, vmsa.features ?? 0, true)
  sealVmsa(machine.hardware, PFN.vmsa, ASID)
  return machine
}

export { HOST_ASID }

/** A program of single operations; `see` gets the outcome of each. */
export const script = (
  operations: ReadonlyArray<Operation>,
  see: (result: OperationResult, index: number) => void = () => {}
): Entry =>
  function* (): Program {
    for (const [index, operation] of operations.entries()) see(yield operation, index)
  }
