import { PAGE_TYPE, type SnpFirmware, type Status } from "@vmpl-lab/psp"
import { PAGE_4K, RETURN_CODE } from "@vmpl-lab/rmp"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import type { Vcpu } from "../kvm/Vcpu.ts"
import type { GuestRequestPort } from "../kvm/Vm.ts"
import { loadSlot } from "../kvm/VmsaUpdate.ts"
import { cpuidPage } from "./CpuidPage.ts"
import type { IgvmIdBlock } from "./igvm/IdBlockHeader.ts"
import type { SharedPage } from "./igvm/IgvmPlan.ts"
import type { LaunchPage } from "./LaunchPlan.ts"
import { changePageState } from "./PageState.ts"
import type { Vmm } from "./Vmm.ts"

/** Guest policy: ABI 0.0, SMT allowed, bit 17 as it must be. */
export const LAUNCH_POLICY = 0x3_0000n

/** What a guest's owner decides beside the pages that are launched. */
export interface LaunchIdentity {
  readonly policy?: bigint | undefined
  readonly idBlock?: IgvmIdBlock | undefined
  /** Pages that the guest finds shared with the host, with these contents. */
  readonly shared?: ReadonlyArray<SharedPage> | undefined
}

/** The launch digest in hex, or what the launch commands answered when one refused. */
export type LaunchOutcome =
  | { readonly ok: true; readonly digest: string }
  | { readonly ok: false; readonly detail: string }

/**
 * Launches the guest: context and keys, then each page of the plan from hypervisor-owned to Pre-Guest by RMPUPDATE and
 * from there to Guest-Valid by the firmware, then LAUNCH_FINISH. VMSA pages become the vCPUs' in turn.
 * @param identity the policy, LAUNCH_POLICY where left out, the owner's ID block, and pages that no command launches
 * @param guestRequests how the firmware takes guest messages of the guest with a context; none, and they are refused
 * @spec SNP-ABI launch flow
 */
export const launch = (
  vmm: Vmm,
  thread: HostThread,
  firmware: SnpFirmware,
  plan: ReadonlyArray<LaunchPage>,
  vcpus: ReadonlyArray<Vcpu>,
  guestRequests?: (gctx: number) => GuestRequestPort,
  identity: LaunchIdentity = {}
): LaunchOutcome => {
  const { kvm, memory } = vmm
  const { asid } = vmm.owner
  const { rmp, host } = kvm.hardware
  const rmpupdate = (pfn: number, immutable: boolean, gfn: number, owner: number): number => {
    thread.charge(PRIMITIVE.rmpupdate_4k)
    return rmp.rmpupdate(pfn, true, PAGE_4K, immutable, gfn, owner)
  }
  const gctx = kvm.frames.allocate()
  if (rmpupdate(gctx, true, 0, 0) !== RETURN_CODE.SUCCESS) return refused("RMPUPDATE", "context page", "not taken")
  const commands: ReadonlyArray<readonly [string, () => Status]> = [
    ["GCTX_CREATE", () => firmware.gctxCreate(gctx)],
    ["LAUNCH_START", () => firmware.launchStart({ gctx, policy: identity.policy ?? LAUNCH_POLICY })],
    ["ACTIVATE", () => firmware.activate(gctx, asid)]
  ]
  for (const [name, command] of commands) {
    const status = command()
    if (status !== "SUCCESS") return refused(name, "", status)
  }
  thread.charge(PRIMITIVE.launch_update_fixed)
  let launched = 0
  for (const page of plan) {
    const gfn = page.gpa / PAGE_SIZE
    const where = `GPA 0x${page.gpa.toString(16)}`
    // Every VMSA is launched at the same GPA, which is in no memory slot: its page is KVM's, not the guest memory's.
    const isVmsa = page.type === PAGE_TYPE.VMSA
    const pfn = isVmsa ? kvm.frames.allocateNot2mAligned() : memory.privateFrame(gfn)
    const contents = page.type === PAGE_TYPE.CPUID ? (page.contents ?? cpuidPage()) : page.contents
    if (host.writePage(pfn, contents) !== 0) return refused("copy", where, "#PF")
    const code = rmpupdate(pfn, true, gfn, asid)
    if (code !== RETURN_CODE.SUCCESS) return refused("RMPUPDATE", where, `EAX ${code}`)
    thread.charge(PRIMITIVE.launch_update_4k)
    const update = { gctx, pfn, pageSize: PAGE_4K, pageType: page.type } as const
    let status = firmware.launchUpdate(update)
    // The firmware has put acceptable values in their place, which the guest will then have to do with.
    if (page.type === PAGE_TYPE.CPUID && status === "INVALID_PARAM") status = firmware.launchUpdate(update)
    if (status !== "SUCCESS") return refused("LAUNCH_UPDATE", where, status)
    if (isVmsa) {
      const boot = vcpus[launched++]
      if (boot === undefined) return refused("LAUNCH_UPDATE", where, "more VMSAs than vCPUs")
      boot.current.vmsaGpa = page.gpa
      boot.current.vmsaPfn = pfn
      const { buffer, byteOffset } = page.contents!
      boot.current.sevFeatures = new DataView(buffer, byteOffset).getUint32(VMSA.sev_features, true)
      boot.vm.launchFeatures = boot.current.sevFeatures
      loadSlot(boot, boot.current, thread)
      boot.vm.protect()
    }
  }
  for (const { gpa, contents } of identity.shared ?? []) {
    const gfn = gpa / PAGE_SIZE
    const where = `GPA 0x${gpa.toString(16)}`
    if (host.writePage(memory.sharedFrame(gfn), contents) !== 0) return refused("copy", where, "#PF")
    if (changePageState(vmm, thread, gfn, 1, false) !== 0) return refused("sharing", where, "no memory of the guest's")
  }
  vmm.owner.guestRequest = guestRequests?.(gctx) ?? null
  const { idBlock } = identity
  const finished = firmware.launchFinish({
    gctx,
    ...(idBlock === undefined ? {} : { idBlock, authKeyEn: idBlock.authKeyEn })
  })
  if (finished !== "SUCCESS") return refused("LAUNCH_FINISH", "", finished)
  return { ok: true, digest: Buffer.from(firmware.guest(gctx)!.digest.value).toString("hex") }
}

const refused = (command: string, where: string, status: string): LaunchOutcome => ({
  ok: false,
  detail: `${command}${where === "" ? "" : ` of ${where}`}: ${status}`
})
