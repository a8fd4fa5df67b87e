// @ghcb 0x80000018, 0x8000fffd, 0x8000fffe, 0x8000ffff
import { NAE, type U64, u64 } from "@vmpl-lab/sev-es"
import { GuestException, hlt, type Program } from "@vmpl-lab/vmpl"
import type { Ghcb } from "../Ghcb.ts"
import type { Outcome } from "./Exchange.ts"

/** Hypervisor features, event 0x8000fffd: version 1 has neither the event nor any feature. */
export function* hypervisorFeatures(ghcb: Ghcb): Program<Outcome<U64>> {
  if (ghcb.version < 2) return { ok: true, value: u64(0) }
  const reply = yield* ghcb.request(NAE.HV_FEATURES, {}, ["info2"])
  return reply.ok ? { ok: true, value: reply.value.info2 } : reply
}

/** Run VMPL, event 0x80000018, by an interrupted user too; `Ghcb.runVmpl` is the short way. */
export function* requestVmpl(ghcb: Ghcb, vmpl: number): Program<Outcome<null>> {
  const reply = yield* ghcb.request(NAE.SNP_RUN_VMPL, { info1: u64(vmpl) })
  return reply.ok ? { ok: true, value: null } : reply
}

/** Termination request, event 0x8000fffe. Does not return, whatever the hypervisor does. */
export function* requestTermination(
  ghcb: Ghcb,
  { set, reason }: { readonly set: number; readonly reason: number }
): Program<never> {
  try {
    yield* ghcb.request(NAE.TERMINATION_REQUEST, { info1: u64((set & 0xf) | ((reason & 0xff) << 4)) })
  } catch (exception) {
    // An exception instead of the end changes nothing.
    if (!(exception instanceof GuestException)) throw exception
  }
  for (;;) yield hlt()
}

/** Unsupported event, event 0x8000ffff: the guest took a #VC that it cannot serve. */
export function* unsupportedEvent(ghcb: Ghcb, exitCode: number): Program<Outcome<null>> {
  const info1 = { lo: exitCode >>> 0, hi: exitCode < 0 ? 0xffff_ffff : 0 }
  const reply = yield* ghcb.request(NAE.UNSUPPORTED_EVENT, { info1 })
  return reply.ok ? { ok: true, value: null } : reply
}
