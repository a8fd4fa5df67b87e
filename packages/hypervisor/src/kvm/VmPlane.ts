import { NUM_VMPLS } from "@vmpl-lab/rmp"
import type { HostThread } from "@vmpl-lab/sim"
import { ERRNO } from "./Errno.ts"
import { ioctl } from "./Ioctl.ts"
import type { Vcpu } from "./Vcpu.ts"
import type { Vm } from "./Vm.ts"

/** A plane of a VM beside plane 0, which is the VM itself: struct kvm_plane with its file descriptor. */
export interface VmPlane {
  readonly id: number
  readonly vm: Vm
}

/** Where a plane's vCPU stands among the VM's objects: above the vCPU id. */
const PLANE_SHIFT = 9

/** KVM_CAP_PLANES: a whole irqchip in the kernel knows one plane only. */
export const maxPlanes = ({ config }: Vm): number => (config.irqchip === true ? 1 : NUM_VMPLS)

/**
 * KVM_CREATE_PLANE.
 * @returns the plane; EINVAL for an id that is none, EEXIST for one that is there, plane 0 included
 */
export const createPlane = (vm: Vm, thread: HostThread, id: number): VmPlane | number => {
  ioctl(thread)
  if (id >= maxPlanes(vm)) return ERRNO.EINVAL
  if (id === 0 || vm.planes.has(id)) return ERRNO.EEXIST
  const plane: VmPlane = { id, vm }
  vm.planes.set(id, plane)
  return plane
}

/**
 * KVM_CREATE_VCPU on a plane's descriptor: the plane's object of a vCPU that plane 0 has. It shares plane 0's kvm_run.
 * @returns the vCPU; EINVAL where plane 0 has none of that id, EEXIST for a second one
 */
export const createPlaneVcpu = ({ vm, id: plane }: VmPlane, thread: HostThread, id: number): Vcpu | number => {
  ioctl(thread)
  const parent = vm.vcpus.get(id)
  if (parent === undefined || parent.current.vmpl !== 0) return ERRNO.EINVAL
  const vcpu = vm.allocateVcpu(thread, (plane << PLANE_SHIFT) | id, id, parent.apicId, [plane])
  if (typeof vcpu === "number") return vcpu
  vcpu.joinDescriptor(parent)
  return vcpu
}
