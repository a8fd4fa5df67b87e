import { exitName, GHCB_VERSION, SEV_FEATURES, sevInfoHi, sevInfoLo } from "@vmpl-lab/sev-es"
import type { HostThread, Span } from "@vmpl-lab/sim"
import type { GuestMode } from "@vmpl-lab/vmpl"
import type { Lapic } from "../apic/index.ts"
import type { ApCreateRequest } from "./ApCreateRequest.ts"
import { CBIT_POSITION } from "./CpuidTable.ts"
import type { GhcbExit } from "./ghcb/GhcbExit.ts"
import { kick } from "./Kick.ts"
import { VcpuCommon } from "./VcpuCommon.ts"
import { VcpuEvents } from "./VcpuEvents.ts"
import type { Vm } from "./Vm.ts"

/** kvm_vcpu.arch.mp_state. */
export const MP_STATE = { RUNNABLE: 0, UNINITIALIZED: 1, INIT_RECEIVED: 2, HALTED: 3, AP_RESET_HOLD: 9 } as const

/** vcpu->requests, one bit each. */
export const REQUEST = { UPDATE_PROTECTED_GUEST_STATE: 1, EVENT: 2 } as const

/** By which form of the protocol a vCPU holds until a SIPI. */
export const AP_RESET_HOLD = { NONE: 0, NAE_EVENT: 1, MSR_PROTO: 2 } as const

/** kvm_run.exit_reason: why KVM_RUN came back to user space. */
export const EXIT_REASON = {
  NONE: "none",
  INTR: "KVM_EXIT_INTR",
  RUN_VMPL: "run-vmpl",
  AP_CREATE: "ap-create",
  LINK_VCPU: "link-vcpu",
  PLANE_EVENT: "KVM_EXIT_PLANE_EVENT",
  MAP_GPA_RANGE: "KVM_HC_MAP_GPA_RANGE",
  IO: "KVM_EXIT_IO",
  MMIO: "KVM_EXIT_MMIO",
  SYSTEM_EVENT_RESET: "KVM_SYSTEM_EVENT_RESET",
  SYSTEM_EVENT_SEV_TERM: "KVM_SYSTEM_EVENT_SEV_TERM",
  SHUTDOWN: "KVM_EXIT_SHUTDOWN",
  FAIL_ENTRY: "KVM_EXIT_FAIL_ENTRY",
  MEMORY_FAULT: "KVM_EXIT_MEMORY_FAULT",
  INTERNAL_ERROR: "KVM_EXIT_INTERNAL_ERROR"
} as const
export type ExitReason = (typeof EXIT_REASON)[keyof typeof EXIT_REASON]

/** kvm_run.plane_event.cause. */
export const PLANE_EVENT = { NONE: 0, INTERRUPT: 1, SWITCH: 2, CREATE_VCPU: 3 } as const

/** The page shared between KVM and the VMM: what the exit is about, and what user space answers. */
export interface KvmRun {
  exitReason: ExitReason
  /** RUN_VMPL, LINK_VCPU and PLANE_EVENT: the level asked for. */
  vmpl: number
  /** PLANE_EVENT: one of PLANE_EVENT. */
  cause: number
  /** LINK_VCPU and PLANE_EVENT: the guest vCPU that lacks the level. */
  apicId: number
  /** In: the plane that KVM_RUN runs, where user space switches planes. */
  plane: number
  /** In: planes whose events make KVM_RUN come back, one bit each. PLANE_EVENT: those that have some. */
  reqExitPlanes: number
  pendingEventPlanes: number
  /** AP_CREATE. */
  apCreate: ApCreateRequest | null
  /** MAP_GPA_RANGE and MEMORY_FAULT. */
  gfn: number
  toPrivate: boolean
  /** MAP_GPA_RANGE: 4 KiB pages from `gfn` on. */
  pages: number
  /** IO and MMIO: port or GPA, bytes of one element and their number, and the data, which a read fills. */
  address: number
  size: number
  count: number
  isWrite: boolean
  data: Uint8Array
  /** User space's answer: 0, or an errno (negative). KVM turns it into the guest's reply on re-entry. */
  ret: number
  /** What was wrong, for a person. */
  detail: string
}

/**
 * KVM's work on re-entry after an exit to user space: writes the reply where the guest looks for it.
 * @returns HANDLED: on to the guest, or to user space once more; or an errno
 */
export type CompleteUserspaceIo = (vcpu: Vcpu, ret: number) => number

/**
 * What KVM keeps for one VMPL of a vCPU. A vCPU object holds one slot when every VMPL has a vCPU of its own, and four
 * when one vCPU holds them all.
 */
export class VmplSlot {
  readonly vmpl: number
  /** VMSA asked for by AP creation, or -1. */
  vmsaGpa = -1
  /** Frame of the VMSA that may run, or -1. */
  vmsaPfn = -1
  /** AP creation was asked for and has not been carried out: snp_ap_waiting_for_reset. */
  waitingForReset = false
  /** GHCB GPA that the guest registered, as a GFN, or -1. */
  registeredGhcbGfn = -1
  /** GHCB MSR of this VMPL while another one is in the VMCB. */
  ghcbLo = sevInfoLo(CBIT_POSITION)
  ghcbHi: number
  /** VMCB fields that KVM itself must carry over: the switch save area. */
  intState = 0
  exitIntInfo = 0
  exitIntInfoErr = 0
  /** SEV_FEATURES of the VMSA, as launch or AP creation told them. */
  sevFeatures: number = SEV_FEATURES.SNPActive
  /** #HV doorbell page and Secure AVIC backing page, GPAs, or -1. */
  doorbellGpa = -1
  /** Observer: the vector that was put into the doorbell page for the #HV to come, or -1. */
  doorbellVector = -1
  secureAvicGpa = -1
  /** What the write traps have told of CR0, CR4, CR8 and EFER: all that KVM knows of them. */
  cr0 = 0x10
  cr4 = 0
  cr8 = 0
  efer = 0

  constructor(vmpl: number, ghcbVersionMax: number = GHCB_VERSION.MAX) {
    this.vmpl = vmpl
    this.ghcbHi = sevInfoHi(ghcbVersionMax, GHCB_VERSION.MIN)
  }
}

/** A kvm_vcpu with its VMCB. */
export class Vcpu {
  readonly vm: Vm
  /** The id given to KVM_CREATE_VCPU. */
  readonly id: number
  readonly apicId: number
  /** System physical address of the VMCB. */
  readonly vmcb: number
  readonly slots: ReadonlyArray<VmplSlot>
  /** The guest vCPU of which this is an object. */
  common: VcpuCommon
  /** snp_current_vmpl: the slot whose VMSA is in the VMCB. */
  current: VmplSlot
  /** snp_target_vmpl: the slot that runs next, after a CREATE or a run VMPL for it. */
  target: VmplSlot
  mpState: number
  /** snp_ap_runnable: the VMSA that AP creation named runs as soon as it is in the VMCB, not only after INIT. */
  apRunnable = true
  requests = 0
  /** Observer: the operation behind a pending UPDATE_PROTECTED_GUEST_STATE. */
  updateSpan: Span | null = null
  /** A signal for the vCPU thread is pending: KVM_RUN returns EINTR. */
  signalPending = false
  /** Core of the last VMRUN, or -1. */
  lastCore = -1
  /** In guest mode: a kick is an IPI. */
  inGuest = false
  /** Asleep inside KVM_RUN: a kick is a wake-up. */
  blocking = false
  /** halt_poll_ns of this vCPU: for how long it polls before it sleeps in a halt. */
  haltPollNs = 0
  /** The thread that is inside KVM_RUN. */
  thread: HostThread | null = null
  processor: GuestMode | null = null
  complete: CompleteUserspaceIo | null = null
  /** The in-kernel local APIC; null where the VM has no in-kernel irqchip. */
  lapic: Lapic | null = null
  /** eventfd of the VMM: an event came for a level of this object, and no thread in KVM_RUN will hear of it. */
  onUnheardEvent: ((vmpl: number, by: HostThread | null) => void) | null = null
  readonly events = new VcpuEvents()
  /** An interrupt window was asked of the hardware. */
  windowOpen = false
  /** How it waits for a SIPI, and whether the first one has come: that one starts the launched VMSA. */
  apResetHold: number = AP_RESET_HOLD.NONE
  receivedFirstSipi = false
  /** VMGEXIT by the page that has not been answered by VMRUN yet: for the trace. */
  openGhcb: GhcbExit | null = null
  /** GHCB of the VMGEXIT that waits for a SIPI, system address. */
  heldGhcb = -1
  /** What goes into a scratch area just before the next VMRUN. */
  scratchToSync: { readonly gpa: number; readonly bytes: Uint8Array } | null = null
  /** DR7 as the guest told it last. */
  dr7 = 0x400
  /** #VMEXITs by exit code. */
  readonly exits = new Map<number, number>()
  run: KvmRun = {
    exitReason: EXIT_REASON.NONE,
    vmpl: 0,
    cause: PLANE_EVENT.NONE,
    apicId: 0,
    plane: 0,
    reqExitPlanes: 0,
    pendingEventPlanes: 0,
    apCreate: null,
    gfn: 0,
    toPrivate: false,
    pages: 0,
    address: 0,
    size: 0,
    count: 0,
    isWrite: false,
    data: new Uint8Array(0),
    ret: 0,
    detail: ""
  }

  constructor(vm: Vm, id: number, apicId: number, vmcb: number, vmpls: ReadonlyArray<number>) {
    this.vm = vm
    this.id = id
    this.apicId = apicId
    this.vmcb = vmcb
    this.slots = vmpls.map((vmpl) => new VmplSlot(vmpl, vm.config.ghcbVersionMax))
    this.current = this.slots[0]!
    this.target = this.current
    this.common = new VcpuCommon(this)
    this.mpState = apicId === 0 && this.current.vmpl === 0 ? MP_STATE.RUNNABLE : MP_STATE.UNINITIALIZED
  }

  /** The slot of a VMPL, or undefined when this vCPU object does not hold that level. */
  slot(vmpl: number): VmplSlot | undefined {
    for (const slot of this.slots) if (slot.vmpl === vmpl) return slot
    return undefined
  }

  /** This object and those of `common` are objects of one guest vCPU. */
  join(common: VcpuCommon): void {
    this.common = common
    common.add(this)
  }

  /** The same, where one descriptor runs them all: they have one kvm_run. */
  joinDescriptor(parent: Vcpu): void {
    this.join(parent.common)
    this.run = parent.run
  }

  /** kvm_inject_nmi, from a thread of user space: the vCPU takes it as soon as none is in progress. */
  injectNmi(by: HostThread): void {
    this.queueNmi()
    this.requests |= REQUEST.EVENT
    if (by !== this.thread) kick(this, by, null)
  }

  /** #VMEXITs so far by AMD's names, the most frequent first. */
  exitCounts(): ReadonlyArray<readonly [name: string, count: number]> {
    return [...this.exits].sort(([, a], [, b]) => b - a).map(([code, count]) => [exitName(code), count])
  }

  /** At most two NMIs wait, one of them while another is in progress. @spec Linux process_nmi */
  queueNmi(): void {
    this.events.nmiPending = Math.min(this.events.nmiPending + 1, this.events.nmiMasked ? 1 : 2)
  }

  /** KVM_SET_MP_STATE(RUNNABLE). */
  setRunnable(): void {
    this.mpState = MP_STATE.RUNNABLE
  }
}
