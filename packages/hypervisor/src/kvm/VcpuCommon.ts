import type { Vcpu } from "./Vcpu.ts"

/**
 * One guest vCPU (one APIC ID): which vCPU object holds each VMPL, and which of the objects runs. Where KVM switches
 * levels this is KVM's own state (kvm_vcpu_common); where the VMM does, the VMM ties the objects together, and KVM, which
 * does not know that they belong together, must not look.
 */
export class VcpuCommon {
  /** vCPU objects by VMPL; null where a level has none. One object that holds all levels stands in all places. */
  readonly vcpus: [Vcpu | null, Vcpu | null, Vcpu | null, Vcpu | null] = [null, null, null, null]
  /** The object that runs, or that would if its guest vCPU were not halted. */
  current: Vcpu
  /** target_vmpl: the object that KVM_RUN goes on with, where a request names it. */
  target: Vcpu
  /** Levels whose plane is RUNNABLE, one bit each; the others are STOPPED. */
  runnablePlanes = 0
  /** irr_pending_planes: levels for which an event came while another level ran, one bit each. */
  pendingPlanes = 0
  /** A plane that user space is yet to be told to switch to, because an AP creation started it; -1 is none. */
  switchTo = -1
  /** A thread is inside KVM_RUN of one of the objects. */
  inRun = false

  constructor(first: Vcpu) {
    this.current = first
    this.target = first
    this.add(first)
  }

  /** Another object of the same guest vCPU. */
  add(vcpu: Vcpu): void {
    for (const { vmpl } of vcpu.slots) this.vcpus[vmpl] = vcpu
  }

  /** The object that holds a VMPL, or null. */
  vcpuOf(vmpl: number): Vcpu | null {
    return this.vcpus[vmpl] ?? null
  }
}
