import type { Rmp } from "@vmpl-lab/rmp"
import { getU64, SEGMENT, VMSA, VMSA_STATE_SIZE } from "@vmpl-lab/sev-es"
import type { HostThread, Span } from "@vmpl-lab/sim"
import type { Execution, ProgramMemory } from "./Execution.ts"
import type { HostMemory } from "./HostMemory.ts"
import type { NestedPageTable } from "./NestedPageTable.ts"
import type { PhysicalMemory } from "./PhysicalMemory.ts"
import type { Tlb } from "./Tlb.ts"

/** The parts of the machine that all cores share. */
export interface Hardware {
  readonly memory: PhysicalMemory
  readonly host: HostMemory
  readonly rmp: Rmp
  /** Code in guest memory. */
  readonly programs: ProgramMemory
  /** Nested page tables by the system physical address that the hypervisor puts into nCR3. */
  readonly nestedTables: Map<number, NestedPageTable>
  /** Software state by VMSA frame. */
  readonly executions: Map<number, Execution>
  /** TLBs of all cores; without them every access asks the tables and the RMP. */
  readonly tlb?: Tlb
  /** MSRs of the host, as its cores have them; by default SNP is on and the host save area is in place. */
  readonly hostMsrs?: HostMsrs
}

/** What VMRUN looks at in the host's MSRs. */
export interface HostMsrs {
  /** SYSCFG.SecureNestedPagingEn. */
  readonly snpEnabled: boolean
  /** VM_HSAVE_PA, a system physical address. */
  readonly vmHsavePa: number
  /** IBS runs in the host. */
  readonly ibsEnabled: boolean
}

/** What of the machine host software can touch: memory and RMP behind their checks, tables that it owns. */
export type HostHardware = Pick<Hardware, "host" | "rmp" | "nestedTables">

/** One core in guest mode: what VMRUN loaded, until #VMEXIT saves it. */
export class Processor {
  readonly hardware: Hardware
  /** The host thread on whose behalf the core is in guest mode: its clock is the core's. */
  thread: HostThread
  vmcb = 0
  vmsaPfn = -1
  asid = 0
  vmpl = 0
  npt: NestedPageTable | null = null
  execution: Execution | null = null
  /** A physical interrupt arrives at this virtual time: Infinity when none is on its way. */
  interruptAt = Infinity
  /** Observer: the operation whose critical path the interrupt carries, if any. */
  interruptSpan: Span | null = null
  /** Observer: a #VMEXIT starts this span on the core's thread, unless one is under way. */
  exitSpan: Span | null = null
  /** Observer: called once, when the first fetch after VMRUN has succeeded. */
  arrived: (() => void) | null = null
  /** Registers, at their VMSA offsets. */
  readonly registers: Uint8Array
  readonly view: DataView
  /** GHCB MSR: it lives in the VMCB, not in the VMSA. */
  ghcbLo = 0
  ghcbHi = 0
  /** Neither paging nor vTOM nor a TLB: an address is a GPA, and the C-bit is the one that the program names. */
  isPlain = true
  /** CR0.PG with EFER.LMA: addresses are virtual. */
  hasPaging = false
  hasVmplSss = false
  /** SNP-active: accesses are checked as an SNP guest's. */
  isSnp = true
  /** The C-bit that counted in the latest translation. */
  cbit = true
  /** AVIC backing frame in use, -1 without. */
  avicPfn = -1
  /** Fault of the latest guest access: EXITINFO1 halves and the faulting GPA. */
  faultInfoLo = 0
  faultInfoHi = 0
  faultGpa = 0

  constructor(hardware: Hardware, thread: HostThread) {
    this.hardware = hardware
    const { tlb } = hardware
    if (tlb !== undefined) hardware.rmp.onHostUpdate = () => tlb.flushAll()
    this.thread = thread
    this.registers = new Uint8Array(VMSA_STATE_SIZE)
    this.view = new DataView(this.registers.buffer)
  }
}

/** Linear address of the next instruction: CS.base + RIP. */
export const linearRip = (cpu: Processor): number =>
  getU64(cpu.view, VMSA.cs + SEGMENT.base) + getU64(cpu.view, VMSA.rip)
