import { type Program, wrmsr } from "@vmpl-lab/vmpl"

/** MSR of the x2APIC's interrupt command register. */
export const MSR_X2APIC_ICR = 0x830

/** Fields of the lower half of the ICR; the upper half is the destination's APIC ID. @spec APM2 16.5 */
export const ICR = { INIT: 0x500, STARTUP: 0x600, ASSERT: 0x4000, ALL_BUT_SELF: 0xc_0000 } as const

/** Whom to start. */
export type ApicTarget = number | "all-but-self"

/** INIT, then SIPI: the target starts at page `vector`, or leaves its AP reset hold. WRMSR of the ICR is intercepted. */
export function* initSipi(target: ApicTarget, vector: number): Program {
  const apicId = target === "all-but-self" ? 0 : target
  const shorthand = target === "all-but-self" ? ICR.ALL_BUT_SELF : 0
  yield wrmsr(MSR_X2APIC_ICR, ICR.INIT | ICR.ASSERT | shorthand, apicId)
  yield wrmsr(MSR_X2APIC_ICR, ICR.STARTUP | ICR.ASSERT | shorthand | (vector & 0xff), apicId)
}
