import { GHCB_VERSION, sevInfoHi, sevInfoLo } from "@vmpl-lab/sev-es"
import type { HostThread, Span } from "@vmpl-lab/sim"
import type { GuestMode } from "@vmpl-lab/vmpl"
import type { ApCreateRequest } from "./ApCreateRequest.ts"
import { CBIT_POSITION } from "./CpuidTable.ts"
import type { Vm } from "./Vm.ts"

/** kvm_vcpu.arch.mp_state. */
export const MP_STATE = { RUNNABLE: 0, UNINITIALIZED: 1, HALTED: 3 } as const

/** vcpu->requests, one bit each. */
export const REQUEST = { UPDATE_PROTECTED_GUEST_STATE: 1 } as const

/** kvm_run.exit_reason: why KVM_RUN came back to user space. */
export const EXIT_REASON = {
  NONE: "none",
  INTR: "KVM_EXIT_INTR",
  RUN_VMPL: "run-vmpl",
  AP_CREATE: "ap-create",
  MAP_GPA_RANGE: "KVM_HC_MAP_GPA_RANGE",
  SYSTEM_EVENT_SEV_TERM: "KVM_SYSTEM_EVENT_SEV_TERM",
  SHUTDOWN: "KVM_EXIT_SHUTDOWN",
  FAIL_ENTRY: "KVM_EXIT_FAIL_ENTRY",
  MEMORY_FAULT: "KVM_EXIT_MEMORY_FAULT",
  INTERNAL_ERROR: "KVM_EXIT_INTERNAL_ERROR"
} as const
export type ExitReason = (typeof EXIT_REASON)[keyof typeof EXIT_REASON]

/** The page shared between KVM and the VMM: what the exit is about, and what user space answers. */
export interface KvmRun {
  exitReason: ExitReason
  /** RUN_VMPL: the level asked for. */
  vmpl: number
  /** AP_CREATE. */
  apCreate: ApCreateRequest | null
  /** MAP_GPA_RANGE and MEMORY_FAULT. */
  gfn: number
  toPrivate: boolean
  /** User space's answer: 0, or an errno (negative). KVM turns it into the guest's reply on re-entry. */
  ret: number
  /** What was wrong, for a person. */
  detail: string
}

/** KVM's work on re-entry after an exit to user space: writes the reply where the guest looks for it. */
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
  ghcbHi = sevInfoHi(GHCB_VERSION.MAX, GHCB_VERSION.MIN)
  /** VMCB fields that KVM itself must carry over: the switch save area. */
  intState = 0
  exitIntInfo = 0
  exitIntInfoErr = 0

  constructor(vmpl: number) {
    this.vmpl = vmpl
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
  /** snp_current_vmpl: the slot whose VMSA is in the VMCB. */
  current: VmplSlot
  /** snp_target_vmpl: the slot that runs next, after a CREATE or a run VMPL for it. */
  target: VmplSlot
  mpState: number
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
  /** The thread that is inside KVM_RUN. */
  thread: HostThread | null = null
  processor: GuestMode | null = null
  complete: CompleteUserspaceIo | null = null
  readonly run: KvmRun = {
    exitReason: EXIT_REASON.NONE,
    vmpl: 0,
    apCreate: null,
    gfn: 0,
    toPrivate: false,
    ret: 0,
    detail: ""
  }

  constructor(vm: Vm, id: number, apicId: number, vmcb: number, vmpls: ReadonlyArray<number>) {
    this.vm = vm
    this.id = id
    this.apicId = apicId
    this.vmcb = vmcb
    this.slots = vmpls.map((vmpl) => new VmplSlot(vmpl))
    this.current = this.slots[0]!
    this.target = this.current
    this.mpState = apicId === 0 && this.current.vmpl === 0 ? MP_STATE.RUNNABLE : MP_STATE.UNINITIALIZED
  }

  /** The slot of a VMPL, or undefined when this vCPU object does not hold that level. */
  slot(vmpl: number): VmplSlot | undefined {
    return this.slots.find((slot) => slot.vmpl === vmpl)
  }

  /** KVM_SET_MP_STATE(RUNNABLE). */
  setRunnable(): void {
    this.mpState = MP_STATE.RUNNABLE
  }
}
