import type { Vm, Vmm } from "@vmpl-lab/hypervisor"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { Basis } from "@vmpl-lab/sim"

/** What one kind of kernel object takes up. */
interface Size {
  readonly bytes: number
  readonly basis: Basis
  readonly source: string
}

const KIB = 1_024
const published = (bytes: number, source: string): Size => ({ bytes, basis: "published", source })
const assumed = (bytes: number, source: string): Size => ({ bytes, basis: "assumed", source })

/** Sizes by which the host's memory is counted. Pages are published by the code that allocates them; structs differ. */
const SIZE = {
  struct_kvm: assumed(48 * KIB, "struct kvm_svm with its arrays, varies with the configuration"),
  struct_vcpu: assumed(16 * KIB, "struct vcpu_svm and guest FPU state, varies with the configuration"),
  vmcb: published(PAGE_SIZE, "Linux snp_safe_alloc_page: one page per vCPU"),
  lapic: published(PAGE_SIZE, "Linux kvm_create_lapic: one page of registers per vCPU"),
  kvm_run: published(3 * PAGE_SIZE, "Linux KVM_GET_VCPU_MMAP_SIZE on x86: run, port I/O data, coalesced MMIO"),
  thread: assumed(26 * KIB, "kernel stack of 16 KiB and a task_struct"),
  nested_page_table: published(PAGE_SIZE, "APM2 15.25: a page per table"),
  memslot_region: published(4, "Linux kvm_lpage_info: one int per 2 MiB region and memory slot"),
  attribute: assumed(9, "Linux mem_attr_array: an xarray node of 576 bytes per 64 private pages")
} as const

export type HostObjectName = keyof typeof SIZE

/** One kind of object that the host holds for a guest. */
export interface HostBytesRow extends Size {
  readonly object: HostObjectName
  readonly count: number
}

const REGION_PAGES = 512

const sum = (vms: ReadonlyArray<Vm>, of: (vm: Vm) => number): number => vms.reduce((total, vm) => total + of(vm), 0)

/**
 * Memory that the host holds for a guest beside the guest's own pages, counted from the objects that were made. Bytes of
 * a row are those of all its objects.
 */
export const hostBytes = (vms: ReadonlyArray<Vm>, vmm: Vmm): ReadonlyArray<HostBytesRow> => {
  const vcpus = sum(vms, (vm) => vm.vcpus.size)
  const pages = (vm: Vm): number => vm.slots.reduce((total, slot) => total + slot.pages, 0)
  const counts: { readonly [O in HostObjectName]: number } = {
    struct_kvm: vms.length,
    struct_vcpu: vcpus,
    vmcb: vcpus,
    // A guest has its local APICs in the kernel, also where no interrupt is simulated and the VM leaves them out.
    lapic: vcpus,
    kvm_run: vcpus,
    thread: vmm.vcpuThreads,
    nested_page_table: sum(vms, (vm) => vm.npt.tablePages),
    memslot_region: sum(vms, (vm) => vm.slots.reduce((total, slot) => total + Math.ceil(slot.pages / REGION_PAGES), 0)),
    attribute: sum(vms, (vm) => pages(vm) - vm.sharedPages)
  }
  return (Object.keys(SIZE) as Array<HostObjectName>).map((object) => {
    const count = counts[object]
    return { object, count, ...SIZE[object], bytes: count * SIZE[object].bytes }
  })
}
