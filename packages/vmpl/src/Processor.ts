import type { Rmp } from "@vmpl-lab/rmp"
import { EXIT, INTERCEPT_WORDS, SEGMENT, VMSA, VMSA_STATE_SIZE } from "@vmpl-lab/sev-es"
import type { HostThread, Span } from "@vmpl-lab/sim"
import type { Execution, ProgramMemory } from "./Execution.ts"
import type { HostMemory } from "./HostMemory.ts"
import type { NestedPageTable } from "./NestedPageTable.ts"
import { PageWalkResult } from "./PageWalkResult.ts"
import type { PhysicalMemory } from "./PhysicalMemory.ts"
import { STEP, type Step } from "./Step.ts"
import type { Tlb, TlbSet } from "./Tlb.ts"

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
  /**
   * The cores' TLBs; without them every access is translated and checked anew, and PCPU_ID and TLB_ID stay as software
   * left them. With them the RMP must be a TlbFlushingRmp.
   */
  readonly tlbs?: TlbSet
  /** Integrity values of VMSAs of SEV-ES guests, by frame: what the CPU itself last sealed. */
  readonly vmsaIntegrity?: Map<number, string>
  /** Where the nonces of protected VMSAs begin, 0 by default. */
  readonly nonceSeed?: bigint
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
  /** CPUID 8000_000A EDX[28], true by default: an intercept of VMRUN, VMLOAD or VMSAVE comes before the address check. */
  readonly svmeAddrChk?: boolean
  /** System memory that those instructions may not name. */
  readonly reserved?: ReadonlyArray<{ readonly base: number; readonly end: number }>
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
  /** SNP-active: accesses are checked as an SNP guest's. */
  isSnp = true
  /** AVIC backing frame in use, -1 without. */
  avicPfn = -1
  execution: Execution | null = null
  /** A physical event arrives at this virtual time: Infinity when none is on its way. */
  interruptAt = Infinity
  /** Virtual time up to which the core may run before others must catch up. */
  horizon = Infinity
  /** What it is: INTR, NMI, SMI or INIT of EXIT. */
  interruptCode: number = EXIT.INTR
  /** Observer: the operation whose critical path the interrupt carries, if any. */
  interruptSpan: Span | null = null
  /** Observer: a #VMEXIT starts this span on the core's thread, unless one is under way. */
  exitSpan: Span | null = null
  /** Observer: called once, when the first fetch after VMRUN has succeeded. */
  arrived: (() => void) | null = null
  /** Observer: called when the handler of an interrupt or of #HV is about to execute its first instruction. */
  delivered: ((vector: number) => void) | null = null
  /** Registers, at their VMSA offsets. */
  readonly registers: Uint8Array
  readonly view: DataView
  /** Registers of the core in host mode, at VMSA offsets; they exist once somebody has looked at them. */
  hostRegisters: Uint8Array | null = null
  /** GHCB MSR: it lives in the VMCB, not in the VMSA. */
  ghcbLo = 0
  ghcbHi = 0
  /** Intercept words of the VMCB, and system addresses of its permission maps. */
  readonly intercepts = new Int32Array(INTERCEPT_WORDS)
  iopm = 0
  msrpm = 0
  /** VMCB whose cached groups this core still has: VMRUN reads only what its clean bits do not vouch for. */
  cachedVmcb = -1
  /** Why the latest intercepted instruction exits: code, EXITINFO1 and 2. */
  exitCode = 0
  exitInfoLo = 0
  exitInfoHi = 0
  exitInfo2 = 0
  /** Task priority as CR8 has it, 4 bits. */
  vTpr = 0
  /** int_ctl and vector of the virtual interrupt, and whether the next instruction is in an interrupt shadow. */
  intCtl = 0
  intVector = 0
  shadow = false
  /** EVENTINJ still to be delivered, and the event in delivery at an exit. */
  eventLo = 0
  eventError = 0
  delivering = 0
  deliveringError = 0
  /** Events come from the VMSA. */
  alternateInjection = false
  /** Something is to be delivered before the next instruction, or as soon as it is not masked. */
  attention = false
  /** HLT that nobody intercepts: the core waits. */
  halted = false
  /** PAUSE filter: count left, and when the latest PAUSE was. */
  pauseCount = 0
  pauseAt = 0
  readonly tlb: Tlb | null
  /** How the loaded VMSA has addresses translated: bits of TRANSLATION; 0 where they are guest physical ones. */
  translation = 0
  /** ACCESS.VMPL_SSS where the loaded VMSA enables VmplSSS, else 0. */
  vmplSss = 0
  /** Sum of the changes of RMP and nested table as of the fetch that was checked last, -1 when the next one must be. */
  fetchedAt = -1
  readonly walk = new PageWalkResult()
  /** ASID of the key under which the latest translated access sees memory. */
  key = 0
  /** Why the latest access or RMP instruction failed. */
  failure: Step = STEP.DONE
  /** Linear address of the latest access that failed, and the error code if it was by #PF. */
  faultLinear = 0
  pageFaultCode = 0
  /** Fault of the latest guest access: EXITINFO1 halves and the faulting GPA. */
  faultInfoLo = 0
  faultInfoHi = 0
  faultGpa = 0

  constructor(hardware: Hardware, thread: HostThread) {
    this.hardware = hardware
    this.thread = thread
    this.tlb = hardware.tlbs?.attach() ?? null
    this.registers = new Uint8Array(VMSA_STATE_SIZE)
    this.view = new DataView(this.registers.buffer)
  }
}

/** A 64-bit address as a number: canonical ones are exact, those of the upper half negative. */
export const addressIn = (view: DataView, offset: number): number =>
  view.getInt32(offset + 4, true) * 0x1_0000_0000 + view.getUint32(offset, true)

/** Linear address of the next instruction: CS.base + RIP. */
export const linearRip = (cpu: Processor): number =>
  addressIn(cpu.view, VMSA.cs + SEGMENT.base) + addressIn(cpu.view, VMSA.rip)
