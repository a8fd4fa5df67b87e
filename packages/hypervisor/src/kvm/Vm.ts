import { RETURN_CODE } from "@vmpl-lab/rmp"
import { CLEAN, NESTED_CTL, PAGE_SIZE, VMCB } from "@vmpl-lab/sev-es"
import { assert, type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import { NestedPageTable } from "@vmpl-lab/vmpl"
import { ERRNO } from "./Errno.ts"
import type { GuestMemory, MemorySlot } from "./GuestMemory.ts"
import { ioctl } from "./Ioctl.ts"
import type { Kvm } from "./Kvm.ts"
import { Vcpu } from "./Vcpu.ts"
import type { VmplOperations } from "./VmplOperations.ts"

const PAGE_4K = 0

/** A struct kvm: one VM object of the guest, with its own nested page table, memory slots and attributes. */
export class Vm {
  readonly kvm: Kvm
  readonly memory: GuestMemory
  readonly operations: VmplOperations
  /** ASID of the guest: equal in all VM objects that were attached to its encryption context. */
  asid = 0
  readonly npt = new NestedPageTable()
  /** System physical address of the table's root, for nCR3. */
  readonly nestedCr3: number
  readonly slots: Array<MemorySlot> = []
  readonly vcpus = new Map<number, Vcpu>()
  /** GFNs that the guest has made shared: KVM_MEMORY_ATTRIBUTE_PRIVATE cleared. */
  readonly #shared = new Set<number>()
  /** SEV_FEATURES that KVM expects of a VMSA at each VMPL; -1 before the first one. */
  readonly vmsaFeatures: [number, number, number, number] = [-1, -1, -1, -1]

  constructor(kvm: Kvm, memory: GuestMemory, operations: VmplOperations) {
    this.kvm = kvm
    this.memory = memory
    this.operations = operations
    this.nestedCr3 = kvm.frames.allocate() * PAGE_SIZE
    kvm.hardware.nestedTables.set(this.nestedCr3, this.npt)
  }

  /** KVM_SET_USER_MEMORY_REGION2. */
  setMemoryRegion(thread: HostThread, slot: MemorySlot): void {
    ioctl(thread)
    thread.charge(PRIMITIVE.memslot_setup)
    this.slots.push(slot)
  }

  /** KVM_CAP_VM_COPY_ENC_CONTEXT_FROM: joins the encryption context, hence the ASID, of the VM that launched. */
  copyEncContextFrom(thread: HostThread, owner: Vm): void {
    ioctl(thread)
    this.asid = owner.asid
  }

  /**
   * KVM_CREATE_VCPU: a vCPU object with its VMCB that holds the given VMPLs.
   * @returns the vCPU, or EEXIST
   */
  createVcpu(thread: HostThread, id: number, apicId: number, vmpls: ReadonlyArray<number>): Vcpu | number {
    ioctl(thread)
    thread.charge(this.vcpus.size === 0 ? PRIMITIVE.create_vcpu_first : PRIMITIVE.create_vcpu)
    if (this.vcpus.has(id)) return ERRNO.EEXIST
    const vmcb = this.kvm.frames.allocateNot2mAligned() * PAGE_SIZE
    const vcpu = new Vcpu(this, id, apicId, vmcb, vmpls)
    this.vcpus.set(id, vcpu)
    this.initVmcb(vcpu)
    return vcpu
  }

  /**
   * What an SNP guest's vCPU needs in its VMCB: ASID, nested paging, and in the GHCB MSR of every VMPL the versions that
   * this KVM speaks. Intercepts and write traps are not modelled.
   * @spec APM2 appendix B
   */
  initVmcb(vcpu: Vcpu): void {
    const { host } = this.kvm.hardware
    const control = NESTED_CTL.NP_ENABLE | NESTED_CTL.SEV_ENABLE | NESTED_CTL.SEV_ES_ENABLE
    const stored =
      host.write32(vcpu.vmcb + VMCB.asid, this.asid) |
      host.write64(vcpu.vmcb + VMCB.nested_ctl, control, 0) |
      this.writeAddress(vcpu.vmcb + VMCB.nested_cr3, this.nestedCr3) |
      host.write64(vcpu.vmcb + VMCB.ghcb_gpa, vcpu.current.ghcbLo, vcpu.current.ghcbHi) |
      host.write32(vcpu.vmcb + VMCB.clean, 0)
    assert(stored === 0, "KVM's own VMCB page is hypervisor-owned")
  }

  /** Stores an address below 2^53. */
  writeAddress(spa: number, address: number): number {
    return this.kvm.hardware.host.write64(spa, address >>> 0, Math.floor(address / 0x1_0000_0000))
  }

  inMemorySlot(gfn: number): boolean {
    return this.slots.some((slot) => gfn >= slot.gfn && gfn < slot.gfn + slot.pages)
  }

  isShared(gfn: number): boolean {
    return this.#shared.has(gfn)
  }

  /** KVM_SET_MEMORY_ATTRIBUTES of one page: zaps the leaf, so that the next access faults in the other backing. */
  setMemoryAttributes(thread: HostThread, gfn: number, isPrivate: boolean): void {
    ioctl(thread)
    if (isPrivate) this.#shared.delete(gfn)
    else this.#shared.add(gfn)
    this.npt.unmap(gfn)
  }

  /**
   * Takes a private page back from the guest: RMPUPDATE to hypervisor-owned, then free.
   * @returns 0, or EBUSY while the page is the VMSA of a vCPU in guest mode
   */
  reclaimPrivate(thread: HostThread, gfn: number): number {
    const pfn = this.memory.privateFrameIfPresent(gfn)
    if (pfn < 0) return 0
    thread.charge(PRIMITIVE.rmpupdate_4k)
    const code = this.kvm.hardware.rmp.rmpupdate(pfn, false, PAGE_4K, false, 0, 0)
    if (code === RETURN_CODE.FAIL_INUSE) return ERRNO.EBUSY
    assert(code === RETURN_CODE.SUCCESS, `RMPUPDATE of a mutable 4K page answers ${code}`)
    this.memory.freePrivate(gfn)
    return 0
  }

  /** The system frame that a GFN maps to in the backing its attribute says, for KVM's own use; -1 when there is none. */
  frameForHost(gfn: number): number {
    if (!this.inMemorySlot(gfn)) return -1
    return this.isShared(gfn) ? this.memory.sharedFrame(gfn) : this.memory.privateFrameIfPresent(gfn)
  }
}

/** All VMCB groups dirty: the CPU may use nothing it cached of this VMCB. */
export const markAllDirty = (vcpu: Vcpu): void => {
  const stored = vcpu.vm.kvm.hardware.host.write32(vcpu.vmcb + VMCB.clean, 0)
  assert(stored === 0, "KVM's own VMCB page is hypervisor-owned")
}

/** After VMRUN the hardware holds every group but the two that KVM always treats as dirty. */
export const CLEAN_AFTER_VMRUN =
  CLEAN.INTERCEPTS |
  CLEAN.PERM_MAP |
  CLEAN.ASID |
  CLEAN.NPT |
  CLEAN.CR |
  CLEAN.DR |
  CLEAN.DT |
  CLEAN.SEG |
  CLEAN.LBR |
  CLEAN.AVIC
