import type { HostThread } from "@vmpl-lab/sim"
import { decodeMsi, MSI_ADDRESS_BASE } from "../apic/index.ts"
import { ioctl } from "../kvm/Ioctl.ts"
import type { Vmm } from "./Vmm.ts"

/** An interrupt that a device of the VMM raises. */
export interface DeviceInterrupt {
  readonly apicId: number
  readonly vector: number
  /** Level that the device belongs to. */
  readonly vmpl: number
  /** When it raised it, virtual ns. */
  readonly raisedAt: number
}

/** KVM_SIGNAL_MSI on the VM object of the device's level, or on the only one. */
export const signalMsi = (vmm: Vmm, thread: HostThread, { apicId, vector, vmpl, raisedAt }: DeviceInterrupt): void => {
  const { kvm } = vmm
  ioctl(thread)
  const lo = (MSI_ADDRESS_BASE | ((apicId & 0xff) << 12)) >>> 0
  const message = decodeMsi(lo, (apicId & 0xffff_ff00) >>> 0, vector)
  const vm = vmm.vms[vmpl] ?? vmm.owner
  kvm.running = thread
  vm.irqchip?.deliver({ message, vmpl, raisedAt })
  kvm.running = null
}
