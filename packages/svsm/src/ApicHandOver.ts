import { disableAlternateInjection, type Ghcb } from "@vmpl-lab/guest"
import { SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { type Program, RFLAGS_IF, read, write } from "@vmpl-lab/vmpl"
import { describeApic, takeBackApic } from "./EventsBelow.ts"
import type { GuestApic } from "./GuestApic.ts"
import { SHADOW } from "./GuestInjection.ts"
import type { GuestVmsa } from "./State.ts"

/**
 * Has the host take over from an emulated APIC, in COCONUT's order: what it holds goes into the doorbell page, the VMSA
 * loses alternate injection, and then the host is told.
 * @returns false where the host refuses: the VMSA and the APIC are as before
 */
export function* handOver(
  ghcb: Ghcb,
  doorbell: number,
  apic: GuestApic,
  { vmsaGpa, vmpl }: GuestVmsa
): Program<boolean> {
  yield* describeApic(doorbell, vmpl, apic)
  const features = (yield read(vmsaGpa + VMSA.sev_features, 4)).lo
  yield write(vmsaGpa + VMSA.sev_features, 4, (features & ~SEV_FEATURES.AlternateInjection) >>> 0)
  const interruptsEnabled = ((yield read(vmsaGpa + VMSA.rflags, 4)).lo & RFLAGS_IF) !== 0
  const shadow = ((yield read(vmsaGpa + VMSA.vintr_ctrl, 4)).lo & SHADOW) !== 0
  yield* ghcb.use()
  const reply = yield* disableAlternateInjection(ghcb, { vmpl, tpr: apic.tpr, shadow, interruptsEnabled })
  if (reply.ok) return true
  yield write(vmsaGpa + VMSA.sev_features, 4, features)
  yield* takeBackApic(doorbell, vmpl, (vector) => apic.postOwn(vector))
  return false
}
