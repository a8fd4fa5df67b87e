import { PAGE_2M, PAGE_4K, PAGES_PER_2M, RETURN_CODE } from "@vmpl-lab/rmp"
import { NPF_INFO1, NPF_INFO1_HI, PAGE_SIZE, VMCB } from "@vmpl-lab/sev-es"
import { type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import { HANDLED } from "./Errno.ts"
import { EXIT_REASON, type Vcpu } from "./Vcpu.ts"

/** Level of the software that gives rights to the others. */
const MONITOR_VMPL = 0

/**
 * Nested page fault: maps the frame that backs the GFN. A private page is given to the guest by RMPUPDATE first, as
 * Guest-Invalid: the guest must PVALIDATE it. A fault that mapping cannot cure (VMPL rights, a C-bit that disagrees
 * with the page's attribute, no memory slot for a private page) goes to user space, or where the VM is configured so and
 * VMPL rights are missing, to VMPL0. Without SNP there is one backing,
 * and no RMP entry.
 */
export const handleNpf = (vcpu: Vcpu, thread: HostThread): number => {
  const { vm } = vcpu
  const { host, rmp } = vm.kvm.hardware
  const infoLo = host.read32(vcpu.vmcb + VMCB.exit_info_1)
  const infoHi = host.read32(vcpu.vmcb + VMCB.exit_info_1 + 4)
  const gpa = host.read64(vcpu.vmcb + VMCB.exit_info_2)
  const gfn = Math.floor(gpa / PAGE_SIZE)
  const isPrivate = (infoHi & NPF_INFO1_HI.ENC) !== 0

  vm.kvm.trace?.pageFault(thread, vcpu.id, gpa, infoLo, infoHi)
  const isEncrypted = vm.config.kind === "snp" && isPrivate
  if (!vm.inMemorySlot(gfn) && !isEncrypted) {
    // No memory there, hence a device: from now on an access is #VC, and the guest asks for it.
    vm.npt.mapReserved(gfn)
    return HANDLED.RESUME_GUEST
  }
  if (!vm.inMemorySlot(gfn)) return memoryFault(vcpu, gfn, isPrivate, `GPA 0x${gpa.toString(16)} is in no memory slot`)
  if ((infoHi & NPF_INFO1_HI.VMPL) !== 0) {
    return vmplFault(vcpu, thread, gpa, isPrivate)
  }
  if (vm.config.kind === "sev-es") {
    thread.charge(PRIMITIVE.npf_map_4k)
    vm.npt.map(gfn, vm.memory.sharedFrame(gfn))
    return HANDLED.RESUME_GUEST
  }
  if (isPrivate === vm.isShared(gfn)) {
    const wants = isPrivate ? "private" : "shared"
    return memoryFault(vcpu, gfn, isPrivate, `GPA 0x${gpa.toString(16)} is accessed as ${wants} but is not`)
  }
  if ((infoLo & NPF_INFO1.RMP) !== 0 && vm.npt.lookup(gfn) >= 0) {
    if (isPrivate && vm.memory.isRegion(gfn)) return handleRmpFault(vcpu, thread, gfn)
    // Backed by 4 KiB: an RMP fault on a mapped page is no size mismatch that PSMASH could mend.
    return memoryFault(vcpu, gfn, isPrivate, `RMP violation at GPA 0x${gpa.toString(16)}`)
  }

  if (isPrivate && vm.isLarge(gfn)) {
    vm.memory.backRegion(gfn)
    if (vm.memory.isRegion(gfn)) return mapRegion(vcpu, thread, gfn)
  }
  thread.charge(PRIMITIVE.npf_map_4k)
  if (!isPrivate) {
    vm.npt.map(gfn, vm.memory.sharedFrame(gfn))
    return HANDLED.RESUME_GUEST
  }
  const pfn = vm.memory.privateFrame(gfn)
  const entry = rmp.entry(pfn)
  if (!(entry.assigned && entry.asid === vm.asid && entry.gfn === gfn)) {
    thread.charge(PRIMITIVE.rmpupdate_4k)
    const code = rmp.rmpupdate(pfn, true, PAGE_4K, false, gfn, vm.asid)
    if (code !== RETURN_CODE.SUCCESS) return memoryFault(vcpu, gfn, isPrivate, `RMPUPDATE answers ${code}`)
  }
  vm.npt.map(gfn, pfn)
  return HANDLED.RESUME_GUEST
}

/**
 * A fault in a region that one page of 2 MiB backs: all of it is given to the guest at once and mapped by one leaf. Once
 * its entry in the RMP has been smashed, leaves are of 4 KiB.
 */
const mapRegion = (vcpu: Vcpu, thread: HostThread, gfn: number): number => {
  const { vm } = vcpu
  const { rmp } = vm.kvm.hardware
  const offset = gfn % PAGES_PER_2M
  const pfn = vm.memory.privateFrame(gfn)
  const entry = rmp.entry(pfn - offset)
  if (!entry.assigned) {
    thread.charge(PRIMITIVE.rmpupdate_2m)
    const code = rmp.rmpupdate(pfn - offset, true, PAGE_2M, false, gfn - offset, vm.asid)
    if (code !== RETURN_CODE.SUCCESS) return memoryFault(vcpu, gfn, true, `RMPUPDATE answers ${code}`)
  } else if (entry.size === PAGE_4K) {
    thread.charge(PRIMITIVE.npf_map_4k)
    vm.npt.map(gfn, pfn)
    return HANDLED.RESUME_GUEST
  }
  thread.charge(PRIMITIVE.npf_map_2m)
  vm.npt.map(gfn - offset, pfn - offset, PAGE_2M)
  return HANDLED.RESUME_GUEST
}

/**
 * An RMP fault on a mapped page of a region: PVALIDATE or RMPADJUST of 4 KiB met a 2 MiB entry, which is smashed; or
 * another VM object's leaf is still of the old size. The leaf goes; the next fault maps the page in the size it has.
 * What neither explains is a violation.
 * @spec Linux sev_handle_rmp_fault
 */
const handleRmpFault = (vcpu: Vcpu, thread: HostThread, gfn: number): number => {
  const { vm } = vcpu
  const { rmp } = vm.kvm.hardware
  const first = vm.memory.privateFrame(gfn) - (gfn % PAGES_PER_2M)
  const entry = rmp.entry(first)
  if (entry.assigned && entry.size === PAGE_2M) {
    thread.charge(PRIMITIVE.psmash_2m)
    const code = rmp.psmash(first)
    if (code !== RETURN_CODE.SUCCESS) return memoryFault(vcpu, gfn, true, `PSMASH answers ${code}`)
  } else if (vm.npt.pageSize === PAGE_4K) {
    return memoryFault(vcpu, gfn, true, `RMP violation at GPA 0x${(gfn * PAGE_SIZE).toString(16)}`)
  }
  vm.npt.unmap(gfn)
  return HANDLED.RESUME_GUEST
}

/** The level lacks a right. VMPL0 may be asked to give it; what happens then is the same as with a run VMPL request. */
const vmplFault = (vcpu: Vcpu, thread: HostThread, gpa: number, isPrivate: boolean): number => {
  const { config, operations, kvm } = vcpu.vm
  const { vmpl } = vcpu.current
  const why = `VMPL${vmpl} may not access GPA 0x${gpa.toString(16)}`
  const refused = (self: Vcpu): number => memoryFault(self, Math.floor(gpa / PAGE_SIZE), isPrivate, why)
  if (config.vmplFaults !== "run-vmpl0" || vmpl === MONITOR_VMPL) return refused(vcpu)
  kvm.meter.switchRequested(vcpu.apicId, vmpl, MONITOR_VMPL)
  const handled = operations.runVmpl(vcpu, thread, MONITOR_VMPL)
  if (handled < 0) {
    kvm.meter.switchRefused(vcpu.apicId, thread)
    return refused(vcpu)
  }
  if (vcpu.run.exitReason === EXIT_REASON.RUN_VMPL && handled === HANDLED.EXIT_TO_USER) {
    vcpu.complete = (self, ret) => {
      if (ret >= 0) return HANDLED.RESUME_GUEST
      kvm.meter.switchRefused(self.apicId, thread)
      return refused(self)
    }
  }
  return handled
}

const memoryFault = (vcpu: Vcpu, gfn: number, toPrivate: boolean, detail: string): number => {
  vcpu.run.exitReason = EXIT_REASON.MEMORY_FAULT
  vcpu.run.gfn = gfn
  vcpu.run.toPrivate = toPrivate
  vcpu.run.detail = detail
  return HANDLED.EXIT_TO_USER
}
