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

/**
 * KVM_SIGNAL_MSI on the VM object of the device's level, or on the only one. Where the VMM decides which level runs, it
 * sees to that too: KVM does not tell it of what waits.
 */
export const signalMsi = (vmm: Vmm, thread: HostThread, { apicId, vector, vmpl, raisedAt }: DeviceInterrupt): void => {
  const { kvm } = vmm
  ioctl(thread)
  const lo = (MSI_ADDRESS_BASE | ((apicId & 0xff) << 12)) >>> 0
  const message = decodeMsi(lo, (apicId & 0xffff_ff00) >>> 0, vector)
  const vm = vmm.vms[vmpl] ?? vmm.owner
  kvm.running = thread
  vm.irqchip?.deliver({ message, vmpl, raisedAt })
  kvm.running = null
  const group = vmm.groups[apicId]
  if (group !== undefined) vmm.operations.interruptWaits?.(vmm, group, vmpl, thread)
}
