import { PAGE_TYPE, type SnpFirmware, type Status } from "@vmpl-lab/psp"
import { PAGE_4K, RETURN_CODE } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import type { Vcpu } from "../kvm/Vcpu.ts"
import { loadSlot } from "../kvm/VmsaUpdate.ts"
import type { LaunchPage } from "./LaunchPlan.ts"
import type { Vmm } from "./Vmm.ts"

/** Guest policy: ABI 0.0, SMT allowed, bit 17 as it must be. */
export const LAUNCH_POLICY = 0x3_0000n

/** ASID of the one guest that a comparison runs. */
export const GUEST_ASID = 1

/** The launch digest in hex, or what the launch commands answered when one refused. */
export type LaunchOutcome =
  | { readonly ok: true; readonly digest: string }
  | { readonly ok: false; readonly detail: string }

/**
 * Launches the guest: context and keys, then each page of the plan from hypervisor-owned to Pre-Guest by RMPUPDATE and
 * from there to Guest-Valid by the firmware, then LAUNCH_FINISH. The VMSA page becomes the boot vCPU's.
 * @spec SNP-ABI launch flow
 */
export const launch = (
  vmm: Vmm,
  thread: HostThread,
  firmware: SnpFirmware,
  plan: ReadonlyArray<LaunchPage>,
  boot: Vcpu
): LaunchOutcome => {
  const { kvm, memory } = vmm
  const { rmp, host } = kvm.hardware
  const rmpupdate = (pfn: number, immutable: boolean, gfn: number, asid: number): number => {
    thread.charge(PRIMITIVE.rmpupdate_4k)
    return rmp.rmpupdate(pfn, true, PAGE_4K, immutable, gfn, asid)
  }
  const gctx = kvm.frames.allocate()
  if (rmpupdate(gctx, true, 0, 0) !== RETURN_CODE.SUCCESS) return refused("RMPUPDATE", "context page", "not taken")
  const commands: ReadonlyArray<readonly [string, () => Status]> = [
    ["GCTX_CREATE", () => firmware.gctxCreate(gctx)],
    ["LAUNCH_START", () => firmware.launchStart({ gctx, policy: LAUNCH_POLICY })],
    ["ACTIVATE", () => firmware.activate(gctx, GUEST_ASID)]
  ]
  for (const [name, command] of commands) {
    const status = command()
    if (status !== "SUCCESS") return refused(name, "", status)
  }
  thread.charge(PRIMITIVE.launch_update_fixed)
  for (const page of plan) {
    const gfn = page.gpa / PAGE_SIZE
    const where = `GPA 0x${page.gpa.toString(16)}`
    const pfn = memory.privateFrame(gfn)
    if (host.writePage(pfn, page.contents) !== 0) return refused("copy", where, "#PF")
    const code = rmpupdate(pfn, true, gfn, GUEST_ASID)
    if (code !== RETURN_CODE.SUCCESS) return refused("RMPUPDATE", where, `EAX ${code}`)
    thread.charge(PRIMITIVE.launch_update_4k)
    const status = firmware.launchUpdate({ gctx, pfn, pageSize: PAGE_4K, pageType: page.type })
    if (status !== "SUCCESS") return refused("LAUNCH_UPDATE", where, status)
    if (page.type === PAGE_TYPE.VMSA) {
      boot.current.vmsaGpa = page.gpa
      boot.current.vmsaPfn = pfn
      loadSlot(boot, boot.current, thread)
    }
  }
  const finished = firmware.launchFinish({ gctx })
  if (finished !== "SUCCESS") return refused("LAUNCH_FINISH", "", finished)
  return { ok: true, digest: Buffer.from(firmware.guest(gctx)!.digest.value).toString("hex") }
}

const refused = (command: string, where: string, status: string): LaunchOutcome => ({
  ok: false,
  detail: `${command}${where === "" ? "" : ` of ${where}`}: ${status}`
})
