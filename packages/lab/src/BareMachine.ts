import {
  DEFAULT_VM_CONFIG,
  type FirmwareImage,
  type GuestKind,
  type KvmTraceSink,
  type LaunchOutcome,
  launch,
  launchPlan,
  launchSevEs,
  type MemorySlot,
  parseFirmware,
  RESET_EIP,
  SECTION_TYPE,
  syntheticFirmware,
  TracePoints,
  VCPU_SIGNATURE,
  type Vcpu,
  type VmConfig,
  type VmmOperations,
  vmsaPages
} from "@vmpl-lab/hypervisor"
import { PAGE_SIZE, SEV_FEATURES } from "@vmpl-lab/sev-es"
import { type HostProgram, type HostThread, type Profile, WAIT } from "@vmpl-lab/sim"
import type { Program } from "@vmpl-lab/vmpl"
import { guestRequestsOf, Platform } from "./Platform.ts"

const MIB = 0x10_0000
/** Guest RAM: firmware metadata lies below 16 MiB, the guest's own pages above. */
const RAM_SIZE = 32 * MIB
/** First page that firmware does not use. */
export const BARE_HEAP_GPA = 16 * MIB

/** Software of a guest without an SVSM: it runs at VMPL0, or without VMPLs. */
export interface BareGuest {
  readonly kind: GuestKind
  /** Beside SNPActive. */
  readonly sevFeatures?: number
  readonly vmConfig?: Partial<Omit<VmConfig, "kind">>
  /** Program of the boot processor, from the reset vector on. */
  readonly boot: (machine: BareMachine) => Program
  /** Program of the other processors, from the firmware's SEV-ES reset block on. */
  readonly ap: (machine: BareMachine) => Program
  /** vCPUs that it is made for, where that is not any number. */
  readonly vcpus?: number
  /** More code in guest memory, devices, routes. */
  readonly prepare?: (machine: BareMachine) => void
}

export interface BareMachineOptions {
  readonly guest: BareGuest
  readonly operations: VmmOperations
  readonly vcpus: number
  readonly profile: Profile
  readonly seed: number
  readonly cores?: number
  readonly kvmTrace?: KvmTraceSink
}

/** One host with one guest that has no SVSM: for the protocols between guest and hypervisor. */
export class BareMachine {
  readonly platform: Platform
  readonly image: FirmwareImage
  readonly vcpus: number
  /** Launch digest, hex; empty until the launch has finished. */
  launchDigest = ""
  /** vCPUs whose program has come to its end. */
  readonly finished: Array<number> = []
  /** What a guest that tries events has found, in its order. */
  readonly checks: Array<{ readonly event: string; readonly ok: boolean }> = []
  readonly #guest: BareGuest

  constructor({ guest, operations, vcpus, profile, seed, cores = 96, kvmTrace }: BareMachineOptions) {
    this.#guest = guest
    this.vcpus = vcpus
    this.image = parseFirmware(syntheticFirmware(), "built-in firmware")
    const memorySlots: ReadonlyArray<MemorySlot> = [
      { gfn: 0, pages: RAM_SIZE / PAGE_SIZE },
      { gfn: this.image.gpa / PAGE_SIZE, pages: this.image.bytes.length / PAGE_SIZE }
    ]
    const vmConfig = { ...DEFAULT_VM_CONFIG, irqchip: true, ...guest.vmConfig, kind: guest.kind }
    const counting = (): boolean => false
    this.platform = new Platform({
      operations,
      host: { cores, placement: "spread" },
      vcpus,
      memorySlots,
      profile,
      seed,
      vmConfig,
      counting
    })
    const { host, hardware, kvm } = this.platform
    if (kvmTrace !== undefined) kvm.trace = new TracePoints(kvmTrace)
    hardware.programs.install(RESET_EIP, () => this.#toItsEnd(guest.boot(this)))
    hardware.programs.install(this.image.apEip!, () => this.#toItsEnd(guest.ap(this)))
    guest.prepare?.(this)
    const main = host.spawn("vmm-main", -1)
    main.program = this.#main(main)
    host.start(main, 0)
  }

  /** GPA of the CPUID page, as the firmware's metadata has it. */
  get cpuidGpa(): number {
    return this.image.sections.find(({ type }) => type === SECTION_TYPE.CPUID)!.gpa
  }

  /** Code that further vCPUs start at: it counts as theirs. */
  install(gpa: number, program: () => Program): void {
    this.platform.hardware.programs.install(gpa, () => this.#toItsEnd(program()))
  }

  /** Simulates up to `maxEvents` events. False when nothing is left to happen, or every program has ended. */
  stepMany(maxEvents: number): boolean {
    return (
      this.platform.vmm.failure === null && this.finished.length < this.vcpus && this.platform.host.stepMany(maxEvents)
    )
  }

  /** Why the guest did not come to its end, or null when it did. */
  failure(): string | null {
    const { failure } = this.platform.vmm
    if (failure !== null) return failure
    const missing = this.vcpus - this.finished.length
    return missing === 0 ? null : `nothing left to run, but ${missing} of ${this.vcpus} vCPUs have not finished`
  }

  *#toItsEnd(program: Program): Program {
    yield* program
    this.finished.push(this.finished.length)
  }

  /** The VMM's main thread: creates the guest, launches it, lets the vCPU threads go. */
  *#main(thread: HostThread): HostProgram {
    const { vmm, host } = this.platform
    vmm.operations.createGuest(vmm, thread, this.vcpus)
    const vcpus = vmm.groups.map(({ active }) => active!.vcpu)
    const outcome = this.#launch(thread, vcpus)
    if (!outcome.ok) {
      vmm.fail(outcome.detail)
      return
    }
    this.launchDigest = outcome.digest
    yield WAIT.SYNC
    for (const { active } of vmm.groups) host.wake(active!.thread, thread, null)
  }

  #launch(thread: HostThread, vcpus: ReadonlyArray<Vcpu>): LaunchOutcome {
    const { vmm, snp, sev } = this.platform
    const { image } = this
    const signature = VCPU_SIGNATURE["EPYC-v4"] ?? 0
    const features = this.#guest.sevFeatures ?? 0
    const plan = { image, vmmType: "QEMU", vcpus: this.vcpus, signature } as const
    if (this.#guest.kind === "sev-es") {
      return launchSevEs(vmm, thread, sev, image, vmsaPages({ ...plan, sevFeatures: features }), vcpus)
    }
    const sevFeatures = SEV_FEATURES.SNPActive | features
    return launch(vmm, thread, snp, launchPlan({ ...plan, sevFeatures }), vcpus, guestRequestsOf(snp))
  }
}
