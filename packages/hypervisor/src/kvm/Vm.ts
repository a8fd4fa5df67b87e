import { PAGE_2M, PAGES_PER_2M, RETURN_CODE } from "@vmpl-lab/rmp"
import { CLEAN, GHCB_VERSION, INT_CTL, NESTED_CTL, PAGE_SIZE, SEV_FEATURES, VIRT_EXT, VMCB } from "@vmpl-lab/sev-es"
import { assert, type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import { NestedPageTable } from "@vmpl-lab/vmpl"
import { HV_FEATURES } from "./CpuidTable.ts"
import { ERRNO } from "./Errno.ts"
import type { GuestMemory, MemorySlot } from "./GuestMemory.ts"
import {
  type Capabilities,
  DEFAULT_CAPABILITIES,
  interceptWords,
  msrPermissionMap,
  PAUSE_FILTER
} from "./InterceptSetup.ts"
import { ioctl, synchronizeSrcu } from "./Ioctl.ts"
import { Irqchip } from "./Irqchip.ts"
import type { Kvm } from "./Kvm.ts"
import { Pit } from "./Pit.ts"
import { Vcpu } from "./Vcpu.ts"
import type { VmPlane } from "./VmPlane.ts"
import type { VmplOperations } from "./VmplOperations.ts"

const PAGE_4K = 0

/** Which protection a guest has. */
export type GuestKind = "sev-es" | "snp"

/** What user space chooses of a VM object when it creates it. */
export interface VmConfig {
  readonly kind: GuestKind
  readonly capabilities: Capabilities
  /** KVM_CREATE_IRQCHIP: local APICs and an I/O APIC in the kernel. KVM_CAP_SPLIT_IRQCHIP: local APICs alone. */
  readonly irqchip: boolean | "split"
  /**
   * KVM tells the monitor of a level with alternate injection, by the monitor's doorbell page, what waits for that
   * level. A proposal that KVM has not taken.
   */
  readonly lowerLevelEvents: boolean
  /** KVM_CREATE_PIT2: the PIT in the kernel. Without it user space has those ports. */
  readonly pit: boolean
  /**
   * What becomes of an access that the RMP refuses for its level's rights: user space hears of it, or the vCPU goes on at
   * VMPL0, whose software took the rights away and finds the fault in the level's VMSA. User space, if left out.
   * @spec-silent who is told of such a fault
   */
  readonly vmplFaults?: "memory-fault" | "run-vmpl0"
  /** Highest GHCB version offered. */
  readonly ghcbVersionMax: number
  /** GHCB hypervisor features offered. */
  readonly hvFeatures: number
}

export const DEFAULT_VM_CONFIG: VmConfig = {
  kind: "snp",
  capabilities: DEFAULT_CAPABILITIES,
  irqchip: false,
  lowerLevelEvents: false,
  pit: false,
  ghcbVersionMax: GHCB_VERSION.MAX,
  hvFeatures: HV_FEATURES
}

/** The AMD-SP as KVM needs it for guest messages; both give the firmware's status, a number. */
export interface GuestRequestPort {
  /** SNP_GUEST_REQUEST: request and response by system frame. */
  readonly guestRequest: (requestPfn: number, responsePfn: number) => number
  /** PAGE_RECLAIM of a Firmware page. */
  readonly reclaim: (pfn: number) => number
  /** Certificates that the host has been given for its guests, as `encodeCertificateTable` writes them; none if absent. */
  readonly certificates?: Uint8Array
}

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
  /** All vCPU objects. Those that user space creates on the VM's own descriptor stand under their id. */
  readonly vcpus = new Map<number, Vcpu>()
  /** Planes beside plane 0, by their number. */
  readonly planes = new Map<number, VmPlane>()
  /** The VM object that launched the guest: this one, unless it has joined another's encryption context. */
  encryptionOwner: Vm = this
  /** SEV_FEATURES that the guest was launched with. */
  launchFeatures: number = SEV_FEATURES.SNPActive
  /** GFNs that the guest has made shared: KVM_MEMORY_ATTRIBUTE_PRIVATE cleared. */
  readonly #shared = new Set<number>()
  /** How many of them lie in a 2 MiB region, for regions that have any. */
  readonly #sharedIn = new Map<number, number>()
  /** SEV_FEATURES that KVM expects of a VMSA at each VMPL; -1 before the first one. */
  readonly vmsaFeatures: [number, number, number, number] = [-1, -1, -1, -1]
  readonly config: VmConfig
  /** GPA that the guest has set as its AP jump table. */
  apJumpTable = 0
  /** In-kernel irqchip: local APICs of the vCPUs, I/O APIC, routes. */
  readonly irqchip: Irqchip | null
  /** In-kernel PIT. */
  readonly pit: Pit | null
  guestRequest: GuestRequestPort | null = null
  /** guest_state_protected: a VMSA was encrypted, and with it all registers. */
  isStateProtected = false
  readonly #intercepts: Int32Array
  /** First frame of the MSR permission map. */
  readonly #msrpm: number

  constructor(kvm: Kvm, memory: GuestMemory, operations: VmplOperations, config: VmConfig = DEFAULT_VM_CONFIG) {
    this.kvm = kvm
    this.config = config
    this.irqchip = config.irqchip ? new Irqchip(this) : null
    this.pit = config.pit ? new Pit() : null
    this.#intercepts = interceptWords(config.capabilities)
    this.#msrpm = kvm.permissionMap(msrPermissionMap())
    this.memory = memory
    this.operations = operations
    this.nestedCr3 = kvm.frames.allocate() * PAGE_SIZE
    kvm.hardware.nestedTables.set(this.nestedCr3, this.npt)
  }

  /** KVM_SET_USER_MEMORY_REGION2. */
  setMemoryRegion(thread: HostThread, slot: MemorySlot): void {
    ioctl(thread)
    thread.charge(PRIMITIVE.memslot_setup)
    synchronizeSrcu(this.kvm, thread)
    this.slots.push(slot)
  }

  /**
   * KVM_SEV_INIT2: gives the VM an ASID of its kind.
   * @returns 0; EINVAL for SEV-ES without local APICs in the kernel, as SIPI and NMI need them; EBUSY without a free ASID
   */
  sevInit(thread: HostThread): number {
    ioctl(thread)
    if (this.config.kind === "sev-es" && this.irqchip === null) return ERRNO.EINVAL
    const asid = this.kvm.sevAsids.allocate(this.config.kind)
    if (asid < 0) return asid
    this.asid = asid
    return 0
  }

  /** sev_vm_destroy: the guest's last VM object gives its ASID back. */
  sevDestroy(): void {
    this.kvm.sevAsids.free(this.asid)
    this.asid = 0
  }

  /** KVM_CAP_VM_COPY_ENC_CONTEXT_FROM: joins the encryption context, hence the ASID, of the VM that launched. */
  copyEncContextFrom(thread: HostThread, owner: Vm): void {
    ioctl(thread)
    this.encryptionOwner = owner
    this.asid = owner.asid
    this.guestRequest = owner.guestRequest
    this.isStateProtected = owner.isStateProtected
    this.kvm.sevAsids.share(this.asid)
  }

  /**
   * KVM_CREATE_VCPU: a vCPU object with its VMCB that holds the given VMPLs.
   * @returns the vCPU, or EEXIST
   */
  createVcpu(thread: HostThread, id: number, apicId: number, vmpls: ReadonlyArray<number>): Vcpu | number {
    ioctl(thread)
    return this.allocateVcpu(thread, id, id, apicId, vmpls)
  }

  /**
   * What KVM does for a new vCPU object, whoever asks. `key` tells it from the others of the VM: objects of one guest
   * vCPU may have the same id.
   * @returns the vCPU, or EEXIST
   */
  allocateVcpu(
    thread: HostThread,
    key: number,
    id: number,
    apicId: number,
    vmpls: ReadonlyArray<number>
  ): Vcpu | number {
    thread.charge(this.vcpus.size === 0 ? PRIMITIVE.create_vcpu_first : PRIMITIVE.create_vcpu)
    if (this.vcpus.has(key)) return ERRNO.EEXIST
    synchronizeSrcu(this.kvm, thread)
    const vmcb = this.kvm.frames.allocateNot2mAligned() * PAGE_SIZE
    const vcpu = new Vcpu(this, id, apicId, vmcb, vmpls)
    this.vcpus.set(key, vcpu)
    this.irqchip?.addVcpu(vcpu)
    this.initVmcb(vcpu)
    return vcpu
  }

  /**
   * What an encrypted guest's vCPU needs in its VMCB: ASID, nested paging, LBR virtualization, intercepts and permission
   * maps, and in the GHCB MSR of every VMPL the versions that this KVM speaks.
   * @spec APM2 appendix B; Linux init_vmcb, sev_es_init_vmcb
   */
  initVmcb(vcpu: Vcpu): void {
    const { host } = this.kvm.hardware
    const control = NESTED_CTL.NP_ENABLE | NESTED_CTL.SEV_ENABLE | NESTED_CTL.SEV_ES_ENABLE
    const stored =
      host.write32(vcpu.vmcb + VMCB.asid, this.asid) |
      host.write64(vcpu.vmcb + VMCB.nested_ctl, control, 0) |
      this.writeAddress(vcpu.vmcb + VMCB.nested_cr3, this.nestedCr3) |
      host.write64(vcpu.vmcb + VMCB.ghcb_gpa, vcpu.current.ghcbLo, vcpu.current.ghcbHi) |
      this.writeAddress(vcpu.vmcb + VMCB.iopm_base_pa, this.kvm.iopm) |
      this.writeAddress(vcpu.vmcb + VMCB.msrpm_base_pa, this.#msrpm * PAGE_SIZE) |
      host.write64(vcpu.vmcb + VMCB.virt_ext, VIRT_EXT.LBR_VIRTUALIZATION, 0) |
      host.write32(vcpu.vmcb + VMCB.int_ctl, INT_CTL.V_INTR_MASKING) |
      host.write32(vcpu.vmcb + VMCB.pause_filter_thresh, (PAUSE_FILTER.COUNT << 16) | PAUSE_FILTER.THRESHOLD) |
      host.write32(vcpu.vmcb + VMCB.clean, 0)
    assert(stored === 0, "KVM's own VMCB page is hypervisor-owned")
    for (const [word, bits] of this.#intercepts.entries()) writeVmcb32(vcpu, 4 * word, bits >>> 0)
  }

  /** LAUNCH_UPDATE of a VMSA. */
  protect(): void {
    this.isStateProtected = true
  }

  /** Stores an address below 2^53. */
  writeAddress(spa: number, address: number): number {
    return this.kvm.hardware.host.write64(spa, address >>> 0, Math.floor(address / 0x1_0000_0000))
  }

  /** Whether memory slots cover every one of these pages. */
  inMemorySlots(gfn: number, pages: number): boolean {
    for (let page = gfn; page < gfn + pages; ) {
      const slot = this.slots.find((one) => page >= one.gfn && page < one.gfn + one.pages)
      if (slot === undefined) return false
      page = slot.gfn + slot.pages
    }
    return true
  }

  /** Pages that the guest has made shared. */
  get sharedPages(): number {
    return this.#shared.size
  }

  inMemorySlot(gfn: number): boolean {
    return this.slots.some((slot) => gfn >= slot.gfn && gfn < slot.gfn + slot.pages)
  }

  isShared(gfn: number): boolean {
    return this.#shared.has(gfn)
  }

  /**
   * Whether the host reads a frame as the guest's shared memory. Without SNP there is one backing: the C-bit of each
   * access tells.
   */
  isSharedForHost(gfn: number): boolean {
    return this.config.kind === "sev-es" || this.isShared(gfn)
  }

  /** Whether the host has one page of 2 MiB for the region of a GFN, and the guest has made nothing of it shared. */
  isLarge(gfn: number): boolean {
    const region = Math.floor(gfn / PAGES_PER_2M)
    return !this.#sharedIn.has(region) && this.slots.some(({ large }) => large?.has(region))
  }

  /**
   * KVM_SET_MEMORY_ATTRIBUTES of some pages: zaps the leaves of those that change, so that the next access faults in the
   * other backing.
   */
  setMemoryAttributes(thread: HostThread, gfn: number, isPrivate: boolean, pages = 1): void {
    ioctl(thread)
    for (let page = gfn; page < gfn + pages; page++) {
      const region = Math.floor(page / PAGES_PER_2M)
      const shared = this.#sharedIn.get(region) ?? 0
      if (isPrivate && shared === 0) {
        // Nothing in this region is shared: on to the next.
        page = (region + 1) * PAGES_PER_2M - 1
        continue
      }
      if (this.#shared.has(page) !== isPrivate) continue
      if (isPrivate) this.#shared.delete(page)
      else this.#shared.add(page)
      if (isPrivate && shared === 1) this.#sharedIn.delete(region)
      else this.#sharedIn.set(region, shared + (isPrivate ? -1 : 1))
      this.npt.unmap(page)
    }
  }

  /**
   * Takes a private page back from the guest: RMPUPDATE to hypervisor-owned, then free.
   * @returns 0, or EBUSY while the page is the VMSA of a vCPU in guest mode
   */
  reclaimPrivate(thread: HostThread, gfn: number): number {
    const pfn = this.memory.privateFrameIfPresent(gfn)
    if (pfn < 0) return 0
    const { rmp } = this.kvm.hardware
    const first = pfn - (gfn % PAGES_PER_2M)
    if (this.memory.isRegion(gfn) && rmp.entry(first).size === PAGE_2M && rmp.entry(first).assigned) {
      thread.charge(PRIMITIVE.psmash_2m)
      if (rmp.psmash(first) !== RETURN_CODE.SUCCESS) return ERRNO.EBUSY
    }
    thread.charge(PRIMITIVE.rmpupdate_4k)
    const code = rmp.rmpupdate(pfn, false, PAGE_4K, false, 0, 0)
    if (code === RETURN_CODE.FAIL_INUSE) return ERRNO.EBUSY
    assert(code === RETURN_CODE.SUCCESS, `RMPUPDATE of a mutable 4K page answers ${code}`)
    this.memory.freePrivate(gfn)
    return 0
  }

  /** The system frame that a GFN maps to in the backing its attribute says, for KVM's own use; -1 when there is none. */
  frameForHost(gfn: number): number {
    if (!this.inMemorySlot(gfn)) return -1
    if (this.config.kind === "sev-es") return this.memory.sharedFrame(gfn)
    return this.isShared(gfn) ? this.memory.sharedFrame(gfn) : this.memory.privateFrameIfPresent(gfn)
  }
}

/** Stores into a VMCB, which is KVM's own page. */
export const writeVmcb32 = (vcpu: Vcpu, offset: number, value: number): void => {
  const stored = vcpu.vm.kvm.hardware.host.write32(vcpu.vmcb + offset, value)
  assert(stored === 0, "KVM's own VMCB page is hypervisor-owned")
}

/** Intercepts have changed: the CPU must read them again. */
export const markDirty = (vcpu: Vcpu): void => {
  const { host } = vcpu.vm.kvm.hardware
  writeVmcb32(vcpu, VMCB.clean, (host.read32(vcpu.vmcb + VMCB.clean) & ~CLEAN.INTERCEPTS) >>> 0)
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
