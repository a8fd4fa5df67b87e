import { SEV_POLICY, type SevFirmware } from "@vmpl-lab/psp"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import type { Vcpu } from "../kvm/Vcpu.ts"
import { loadSlot } from "../kvm/VmsaUpdate.ts"
import type { FirmwareImage } from "./FirmwareImage.ts"
import type { LaunchOutcome } from "./Launch.ts"
import type { Vmm } from "./Vmm.ts"

/** Policy of an SEV-ES guest: bit 2 demands that its state is encrypted. */
export const SEV_ES_POLICY = SEV_POLICY.ES

/**
 * Launches an SEV-ES guest without SNP: the firmware image, then a VMSA for every vCPU, both encrypted in place with the
 * guest's key and measured. Its memory stays the hypervisor's as far as the RMP knows.
 * @spec SEV-API launch flow
 */
export const launchSevEs = (
  vmm: Vmm,
  thread: HostThread,
  firmware: SevFirmware,
  image: FirmwareImage,
  vmsas: ReadonlyArray<Uint8Array>,
  vcpus: ReadonlyArray<Vcpu>
): LaunchOutcome => {
  const { kvm, memory, owner } = vmm
  const { host } = kvm.hardware
  const started = firmware.launchStart({ policy: SEV_ES_POLICY })
  if (started.status !== "SUCCESS") return refused("LAUNCH_START", started.status)
  const { handle } = started
  const activated = firmware.activate(handle, owner.asid)
  if (activated !== "SUCCESS") return refused("ACTIVATE", activated)
  thread.charge(PRIMITIVE.launch_update_fixed)
  for (let offset = 0; offset < image.bytes.length; offset += PAGE_SIZE) {
    const gpa = image.gpa + offset
    const pfn = memory.sharedFrame(gpa / PAGE_SIZE)
    if (host.writePage(pfn, image.bytes.subarray(offset, offset + PAGE_SIZE)) !== 0) return refused("copy", "#PF")
    thread.charge(PRIMITIVE.launch_update_4k)
    const status = firmware.launchUpdateData({ handle, paddr: pfn * PAGE_SIZE, length: PAGE_SIZE })
    if (status !== "SUCCESS") return refused(`LAUNCH_UPDATE_DATA of GPA 0x${gpa.toString(16)}`, status)
  }
  for (const [i, bytes] of vmsas.entries()) {
    const vcpu = vcpus[i]
    if (vcpu === undefined) return refused("LAUNCH_UPDATE_VMSA", "more VMSAs than vCPUs")
    const checked = checkVmsa(bytes)
    if (checked !== null) return refused(`VMSA of vCPU ${i}`, checked)
    const pfn = kvm.frames.allocateNot2mAligned()
    if (host.writePage(pfn, bytes) !== 0) return refused("copy", "#PF")
    thread.charge(PRIMITIVE.launch_update_4k)
    const status = firmware.launchUpdateVmsa({ handle, paddr: pfn * PAGE_SIZE, length: PAGE_SIZE })
    if (status !== "SUCCESS") return refused(`LAUNCH_UPDATE_VMSA of vCPU ${i}`, status)
    vcpu.current.vmsaPfn = pfn
    vcpu.current.sevFeatures = 0
    loadSlot(vcpu, vcpu.current, thread)
    vcpu.vm.protect()
  }
  const measured = firmware.launchMeasure(handle)
  if (measured.status !== "SUCCESS") return refused("LAUNCH_MEASURE", measured.status)
  const finished = firmware.launchFinish(handle)
  if (finished !== "SUCCESS") return refused("LAUNCH_FINISH", finished)
  return { ok: true, digest: Buffer.from(firmware.guest(handle)!.digest!).toString("hex") }
}

const DR7_FIXED_1 = 0x400

/**
 * What KVM looks at before it hands a VMSA over: SEV_FEATURES must be none that need SNP, and nobody may be debugging.
 * The firmware itself looks at no register.
 * @returns what is wrong, or null
 * @spec Linux sev_es_sync_vmsa
 */
export const checkVmsa = (bytes: Uint8Array): string | null => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  if (view.getUint32(VMSA.dr7, true) !== DR7_FIXED_1) return "DR7 is not at its reset value: EINVAL"
  if (view.getUint32(VMSA.sev_features, true) !== 0) return "SEV_FEATURES are those of an SNP guest: EINVAL"
  return null
}

const refused = (command: string, status: string): LaunchOutcome => ({ ok: false, detail: `${command}: ${status}` })
