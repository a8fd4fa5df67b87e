import { sendIpi } from "@vmpl-lab/guest"
import type { Program } from "@vmpl-lab/vmpl"
import type { SvsmState } from "../State.ts"

/** Lower half of the x2APIC's ICR; the upper one is the destination. @spec APM2 16.5 */
const ICR = {
  VECTOR: 0xff,
  MODE: 7 << 8,
  LOGICAL: 1 << 11,
  ASSERT: 1 << 14,
  LEVEL: 1 << 15,
  SHORTHAND: 3 << 18
} as const
const MODE = { FIXED: 0, NMI: 4 << 8 } as const
const SHORTHAND = { NONE: 0, SELF: 1, ALL: 2, OTHERS: 3 } as const
const BROADCAST = 0xffff_ffff
/** Vector of VMPL0 by which one CPU has another look at its guest's APIC. */
const KICK_VECTOR = 0x22

/** What the ICR asks for, or null for what is refused: other modes than fixed and NMI, reserved bits. */
export const icrVector = (lo: number): { readonly vector: number; readonly nmi: boolean } | null => {
  const known = ICR.VECTOR | ICR.MODE | ICR.LOGICAL | ICR.ASSERT | ICR.LEVEL | ICR.SHORTHAND
  const mode = lo & ICR.MODE
  if ((lo & ~known) !== 0 || (mode !== MODE.FIXED && mode !== MODE.NMI)) return null
  return { vector: lo & ICR.VECTOR, nmi: mode === MODE.NMI }
}

/** APIC IDs that an ICR means. Logical ones are by cluster: 16 APICs, a bit each. */
export const icrTargets = (lo: number, hi: number, self: number, vcpus: number): ReadonlyArray<number> => {
  const all = Array.from({ length: vcpus }, (_, apicId) => apicId)
  switch ((lo & ICR.SHORTHAND) >>> 18) {
    case SHORTHAND.SELF:
      return [self]
    case SHORTHAND.ALL:
      return all
    case SHORTHAND.OTHERS:
      return all.filter((apicId) => apicId !== self)
    default:
      if (hi === BROADCAST) return all
      if ((lo & ICR.LOGICAL) === 0) return all.filter((apicId) => apicId === hi)
      return all.filter((apicId) => apicId >>> 4 === hi >>> 16 && ((hi >>> (apicId & 0xf)) & 1) !== 0)
  }
}

/** Delivers an IPI to the emulated APICs of its targets, and has the CPUs of the others look at theirs. */
export function* sendByIcr(state: SvsmState, self: number, lo: number, hi: number): Program {
  const { vector, nmi } = icrVector(lo)!
  const isPhysical = (lo & (ICR.LOGICAL | ICR.SHORTHAND)) === 0 && hi !== BROADCAST
  for (const target of icrTargets(lo, hi, self, state.parameters.vcpus)) {
    const guest = state.interrupts[target]?.guestApic ?? null
    if (guest === null) continue
    const losesMode = isPhysical && target !== self && !state.behaviour.sendsPhysicalNmi
    if (nmi && !losesMode) guest.nmi = true
    else guest.postOwn(vector)
    if (target === self) continue
    yield* state.interrupts[self]!.ghcb.use()
    yield* sendIpi(target, KICK_VECTOR)
  }
}
