// @ghcb 0x8000001c
import { HV_FEATURE, NAE } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { doorbellAddress } from "../Doorbell.ts"
import { injectedBelow, takeOverInjection } from "../LowerLevels.ts"
import type { Vcpu } from "../Vcpu.ts"
import type { GhcbEvent } from "./GhcbEvent.ts"
import type { GhcbExit } from "./GhcbExit.ts"
import { done, invalidInput } from "./Reply.ts"

/** sw_exit_info_1: RFLAGS.IF, interrupt shadow, TPR in [15:8], VMPL in [19:16]. */
const INFO = { IF: 1, SHADOW: 2, RESERVED: 0xfff0_00fc } as const

/**
 * A monitor injects no more into a level below: the host's local APIC of that level takes over, and finds what it did
 * not see in the level's descriptor of the monitor's doorbell page. Where one local APIC serves all levels there is none
 * to take over.
 * @spec GHCB "disable alternate injection", a proposal of 2024; caller: COCONUT-SVSM
 */
const disableAlternateInjection = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  const { info1Lo, info1Hi } = exit
  const page = doorbellAddress(vcpu)
  const lower = injectedBelow(vcpu, (info1Lo >>> 16) & 0xf)
  if ((info1Lo & INFO.RESERVED) !== 0 || info1Hi !== 0 || page < 0 || lower === null) return invalidInput(vcpu, exit)
  takeOverInjection(lower, page, {
    tpr: (info1Lo >>> 8) & 0xff,
    shadow: (info1Lo & INFO.SHADOW) !== 0,
    interruptsEnabled: (info1Lo & INFO.IF) !== 0
  })
  return done(vcpu, exit)
}

/** Events of alternate injection. */
export const INJECTION_EVENTS: ReadonlyArray<GhcbEvent> = [
  {
    code: NAE.DISABLE_ALTERNATE_INJECTION,
    name: "disable alternate injection",
    needs: [],
    snp: true,
    feature: HV_FEATURE.ALTERNATE_INJECTION,
    handle: disableAlternateInjection
  }
]
