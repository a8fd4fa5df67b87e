import { type Program, wrmsr } from "@vmpl-lab/vmpl"

/** MSRs of the local APIC in x2APIC mode. @spec APM2 16.11 */
export const X2APIC = {
  ID: 0x802,
  TPR: 0x808,
  PPR: 0x80a,
  EOI: 0x80b,
  LDR: 0x80d,
  SPIV: 0x80f,
  ISR: 0x810,
  TMR: 0x818,
  IRR: 0x820,
  ICR: 0x830,
  LVTT: 0x832,
  TMICT: 0x838,
  TDCR: 0x83e,
  SELF_IPI: 0x83f
} as const

/** SPIV: enabled, spurious vector 0xff. */
export const SPIV_ENABLED = 0x1ff

const LVT = { MASKED: 1 << 16, PERIODIC: 1 << 17 } as const
const DIVIDE_BY_1 = 0xb
const ICR_ASSERT = 0x4000

/** The timer raises `vector` every `periodNs`: a count is one ns with KVM's APIC, undivided. */
export function* startApicTimer(vector: number, periodNs: number): Program {
  yield wrmsr(X2APIC.TDCR, DIVIDE_BY_1)
  yield wrmsr(X2APIC.LVTT, LVT.PERIODIC | vector)
  yield wrmsr(X2APIC.TMICT, periodNs)
}

export function* stopApicTimer(): Program {
  yield wrmsr(X2APIC.LVTT, LVT.MASKED)
  yield wrmsr(X2APIC.TMICT, 0)
}

/** A fixed interrupt to one vCPU. */
export function* sendIpi(apicId: number, vector: number): Program {
  yield wrmsr(X2APIC.ICR, ICR_ASSERT | vector, apicId)
}
