import { LiveFailed, must } from "../LiveFailed.ts"
import { errnoText } from "../os/Errno.ts"
import type { Mapping, Os } from "../os/Os.ts"
import type { Resources } from "../Resources.ts"
import { ENABLE_CAP, KVM, KVM_CAP, MEMORY_REGION, MSI } from "./Abi.ts"
import type { KvmSystem } from "./KvmSystem.ts"
import { KvmVcpu } from "./KvmVcpu.ts"

/** Three pages below 4 GiB that an Intel backend wants; nothing of the guest is there. */
const TSS_ADDRESS = 0xfffb_d000
const MSI_ADDRESS = 0xfee0_0000

/** A VM file descriptor. */
export class KvmVm {
  readonly system: KvmSystem
  readonly fd: number
  readonly #resources: Resources
  #slots = 0

  constructor(system: KvmSystem, resources: Resources, fd: number) {
    this.system = system
    this.fd = fd
    this.#resources = resources
  }

  get os(): Os {
    return this.system.os
  }

  /** KVM_SET_TSS_ADDR: only backends that need it know it, others may refuse. */
  setTssAddress(): void {
    this.os.ioctl(this.fd, KVM.SET_TSS_ADDR, TSS_ADDRESS)
  }

  /** Guest memory at a guest physical address: anonymous pages of this process. */
  addMemory(gpa: number, memory: Mapping): void {
    const region = new Uint8Array(MEMORY_REGION.BYTES)
    const view = new DataView(region.buffer)
    view.setUint32(MEMORY_REGION.slot, this.#slots++, true)
    view.setBigUint64(MEMORY_REGION.guest_phys_addr, BigInt(gpa), true)
    view.setBigUint64(MEMORY_REGION.memory_size, BigInt(memory.bytes), true)
    view.setBigUint64(MEMORY_REGION.userspace_addr, memory.address, true)
    const set = this.os.ioctlBuffer(this.fd, KVM.SET_USER_MEMORY_REGION, region)
    must("KVM_SET_USER_MEMORY_REGION", set)
  }

  /** KVM_CREATE_VCPU, and the page shared with it. */
  createVcpu(id: number): KvmVcpu {
    const { os, system } = this
    const fd = this.#resources.fd(must("KVM_CREATE_VCPU", os.ioctl(this.fd, KVM.CREATE_VCPU, id)))
    const run = os.mmap(fd, system.runBytes)
    if (typeof run === "number") throw new LiveFailed({ why: `mmap of kvm_run fails with ${errnoText(-run)}` })
    return new KvmVcpu(os, fd, this.#resources.mapping(run))
  }

  createIrqchip(): void {
    must("KVM_CREATE_IRQCHIP", this.os.ioctl(this.fd, KVM.CREATE_IRQCHIP, 0))
  }

  /** KVM_CAP_HALT_POLL: how long a halted vCPU of this VM polls before it sleeps, in ns. */
  setHaltPoll(ns: number): void {
    const cap = new Uint8Array(ENABLE_CAP.BYTES)
    const view = new DataView(cap.buffer)
    view.setUint32(ENABLE_CAP.cap, KVM_CAP.HALT_POLL, true)
    view.setBigUint64(ENABLE_CAP.args, BigInt(ns), true)
    must("KVM_ENABLE_CAP(KVM_CAP_HALT_POLL)", this.os.ioctlBuffer(this.fd, KVM.ENABLE_CAP, cap))
  }

  /** The message that raises an interrupt on the vCPU with APIC ID 0. */
  static msi(vector: number): Uint8Array {
    const msi = new Uint8Array(MSI.BYTES)
    const view = new DataView(msi.buffer)
    view.setUint32(MSI.address_lo, MSI_ADDRESS, true)
    view.setUint32(MSI.data, vector, true)
    return msi
  }

  /** KVM_SIGNAL_MSI, also from a thread that only has the descriptor. */
  static signal(os: Os, fd: number, message: Uint8Array): void {
    must("KVM_SIGNAL_MSI", os.ioctlBuffer(fd, KVM.SIGNAL_MSI, message))
  }
}
