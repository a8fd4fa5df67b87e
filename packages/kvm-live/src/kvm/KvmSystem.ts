import { LiveFailed, must } from "../LiveFailed.ts"
import { errnoText } from "../os/Errno.ts"
import type { Os } from "../os/Os.ts"
import type { Resources } from "../Resources.ts"
import { CPUID2, KVM, KVM_API_VERSION } from "./Abi.ts"
import { KvmVm } from "./KvmVm.ts"

const CPUID_ENTRIES_MAX = 256

/** The file descriptor of /dev/kvm. */
export class KvmSystem {
  readonly fd: number
  readonly os: Os
  readonly runBytes: number
  readonly apiVersion: number
  #cpuid: Uint8Array | null = null

  /** @throws LiveFailed where the device cannot be opened or speaks another version */
  constructor(os: Os, resources: Resources, path: string) {
    this.os = os
    const fd = os.open(path)
    if (fd < 0) throw new LiveFailed({ why: `${path} cannot be opened: ${errnoText(-fd)}` })
    this.fd = resources.fd(fd)
    this.apiVersion = must("KVM_GET_API_VERSION", os.ioctl(fd, KVM.GET_API_VERSION, 0))
    if (this.apiVersion !== KVM_API_VERSION) {
      throw new LiveFailed({ why: `KVM_GET_API_VERSION answers ${this.apiVersion}, expected ${KVM_API_VERSION}` })
    }
    this.runBytes = must("KVM_GET_VCPU_MMAP_SIZE", os.ioctl(fd, KVM.GET_VCPU_MMAP_SIZE, 0))
  }

  /** KVM_CHECK_EXTENSION: 0 where KVM does not have it. */
  capability(number: number): number {
    return Math.max(0, this.os.ioctl(this.fd, KVM.CHECK_EXTENSION, number))
  }

  createVm(resources: Resources): KvmVm {
    return new KvmVm(this, resources, resources.fd(must("KVM_CREATE_VM", this.os.ioctl(this.fd, KVM.CREATE_VM, 0))))
  }

  /** KVM_GET_SUPPORTED_CPUID, as KVM_SET_CPUID2 takes it. */
  supportedCpuid(): Uint8Array {
    if (this.#cpuid !== null) return this.#cpuid
    const table = new Uint8Array(CPUID2.HEADER + CPUID_ENTRIES_MAX * CPUID2.ENTRY)
    new DataView(table.buffer).setUint32(0, CPUID_ENTRIES_MAX, true)
    must("KVM_GET_SUPPORTED_CPUID", this.os.ioctlBuffer(this.fd, KVM.GET_SUPPORTED_CPUID, table))
    this.#cpuid = table
    return table
  }
}
