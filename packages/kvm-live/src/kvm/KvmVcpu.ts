import { LiveFailed, must } from "../LiveFailed.ts"
import { errnoText } from "../os/Errno.ts"
import type { Mapping, Os } from "../os/Os.ts"
import { KVM, KVM_EXIT, kvmExitName, LAPIC, RUN } from "./Abi.ts"

const EINTR = 4

/** A vCPU file descriptor with its kvm_run page. */
export class KvmVcpu {
  readonly fd: number
  readonly run: Mapping
  readonly #os: Os

  constructor(os: Os, fd: number, run: Mapping) {
    this.#os = os
    this.fd = fd
    this.run = run
  }

  /** KVM_RUN as it is: 0, or -errno. */
  enter(): number {
    return this.#os.kvmRun(this.fd, this.run)
  }

  get exitReason(): number {
    return this.run.view.getUint32(RUN.exit_reason, true)
  }

  /**
   * KVM_RUN until the guest's next port write: what all guests here use to call for user space.
   * @throws LiveFailed at any other outcome
   */
  runToPortWrite(): void {
    const entered = this.enter()
    if (entered !== 0 || this.exitReason !== KVM_EXIT.IO) throw this.unexpected(entered)
  }

  /**
   * KVM_RUN until a signal or immediate_exit ends it.
   * @throws LiveFailed at any other outcome
   */
  runUntilKicked(): void {
    const entered = this.enter()
    if (entered !== -EINTR) throw this.unexpected(entered)
  }

  /** What a return of KVM_RUN that was not expected means, as an error. */
  unexpected(entered: number): LiveFailed {
    if (entered < 0) return new LiveFailed({ why: `KVM_RUN fails with ${errnoText(-entered)}` })
    const reason = this.exitReason
    const name = kvmExitName(reason)
    switch (reason) {
      case KVM_EXIT.SHUTDOWN:
        return new LiveFailed({ why: `KVM_RUN ends with ${name}: the guest has triple-faulted` })
      case KVM_EXIT.FAIL_ENTRY: {
        const why = this.run.view.getUint32(RUN.fail_entry_reason, true)
        return new LiveFailed({ why: `KVM_RUN ends with ${name}: the processor refuses the guest, reason ${why}` })
      }
      case KVM_EXIT.INTERNAL_ERROR: {
        const why = this.run.view.getUint32(RUN.internal_suberror, true)
        return new LiveFailed({ why: `KVM_RUN ends with ${name}, suberror ${why}: this KVM cannot run the guest` })
      }
      default:
        return new LiveFailed({ why: `KVM_RUN ends with ${name}, which the guest does not cause` })
    }
  }

  get immediateExit(): boolean {
    return this.run.octets[RUN.immediate_exit] !== 0
  }

  set immediateExit(on: boolean) {
    this.run.octets[RUN.immediate_exit] = on ? 1 : 0
  }

  /** One of the ioctls that read or write registers. */
  registers(name: "GET_REGS" | "SET_REGS" | "GET_SREGS" | "SET_SREGS", buffer: Uint8Array): void {
    must(`KVM_${name}`, this.#os.ioctlBuffer(this.fd, KVM[name], buffer))
  }

  /** KVM_SET_MP_STATE: runnable. */
  setRunnable(): void {
    must("KVM_SET_MP_STATE", this.#os.ioctlBuffer(this.fd, KVM.SET_MP_STATE, new Uint8Array(4)))
  }

  setCpuid(table: Uint8Array): void {
    must("KVM_SET_CPUID2", this.#os.ioctlBuffer(this.fd, KVM.SET_CPUID2, table))
  }

  /** The in-kernel local APIC's registers. */
  apicPage(): Uint8Array {
    const page = new Uint8Array(LAPIC.BYTES)
    must("KVM_GET_LAPIC", this.#os.ioctlBuffer(this.fd, KVM.GET_LAPIC, page))
    return page
  }

  setApicPage(page: Uint8Array): void {
    must("KVM_SET_LAPIC", this.#os.ioctlBuffer(this.fd, KVM.SET_LAPIC, page))
  }

  /** Software-enables the in-kernel local APIC: KVM delivers no message to one that is not. */
  enableApic(): void {
    const page = this.apicPage()
    const view = new DataView(page.buffer)
    view.setUint32(LAPIC.spurious, view.getUint32(LAPIC.spurious, true) | LAPIC.SOFTWARE_ENABLE, true)
    this.setApicPage(page)
  }
}
