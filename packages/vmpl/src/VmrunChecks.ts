// @section 4.1
import {
  decodeEventInjection,
  EFER_SVME,
  EVENT_TYPE,
  type EventInjection,
  SEV_FEATURES,
  VECTOR_HV
} from "@vmpl-lab/sev-es"

/** What VMRUN looks at, beside pages: VMCB, VMSA and the host's MSRs. */
export interface VmrunState {
  /** SYSCFG.SecureNestedPagingEn. */
  readonly snpEnabled: boolean
  /** VMCB nested_ctl: SEV and SEV-ES. */
  readonly sev: boolean
  readonly sevEs: boolean
  /** VMCB int_ctl: AVIC. */
  readonly avic: boolean
  /** VMCB nested_ctl: supervisor shadow-stack check. */
  readonly shadowStackCheck: boolean
  /** VMCB EVENTINJ, lower half. */
  readonly eventInjection: number
  /** VMCB ALLOWED_SEV_FEATURES: null where its bit 63 is clear. */
  readonly allowedFeatures: number | null
  /** IBS runs in the host. */
  readonly ibsEnabled: boolean
  /** VMSA: lower halves of SEV_FEATURES and EFER. */
  readonly features: number
  readonly efer: number
}

/** Why VMRUN exits with VMEXIT_INVALID. */
export interface VmrunCause {
  readonly name: string
  readonly source: string
  readonly refuses: (state: VmrunState) => boolean
}

const has = ({ features }: VmrunState, feature: number): boolean => (features & feature) !== 0
const { SNPActive, RestrictedInjection, AlternateInjection, VmplSSS, SecureAVIC, PreventHostIBS } = SEV_FEATURES
const HW_BREAKPOINT_VECTORS = [3, 4]

const injected = ({ eventInjection }: VmrunState): EventInjection | null => {
  const event = decodeEventInjection(eventInjection)
  return event.valid ? event : null
}

/** The only event that restricted injection lets through: #HV without an error code. */
const isHv = ({ vector, type, errorCodeValid }: EventInjection): boolean =>
  vector === VECTOR_HV && type === EVENT_TYPE.EXCEPTION && !errorCodeValid

/** INT n, and #BP and #OF as exceptions: they would tell the guest of an instruction that it did not execute. */
const isSoftware = ({ vector, type }: EventInjection): boolean =>
  type === EVENT_TYPE.SOFT_INT || (type === EVENT_TYPE.EXCEPTION && HW_BREAKPOINT_VECTORS.includes(vector))

/**
 * Causes of VMEXIT_INVALID that hang on no page. One of them is enough.
 * @spec APM2 15.36.16, 15.36.12, appendix B
 */
export const VMRUN_CAUSES: ReadonlyArray<VmrunCause> = [
  {
    name: "SNPActive while SNP is not enabled",
    source: "APM2 15.36.2",
    refuses: (state) => has(state, SNPActive) && !state.snpEnabled
  },
  {
    name: "SNPActive without SEV and SEV-ES",
    source: "APM2 15.36",
    refuses: (state) => has(state, SNPActive) && !(state.sev && state.sevEs)
  },
  {
    name: "Restricted and Alternate Injection",
    source: "APM2 15.36.16",
    refuses: (state) => has(state, RestrictedInjection) && has(state, AlternateInjection)
  },
  {
    name: "VmplSSS and the VMCB's shadow-stack check",
    source: "APM2 15.36.7",
    refuses: (state) => has(state, VmplSSS) && state.shadowStackCheck
  },
  {
    name: "Restricted or Alternate Injection or Secure AVIC with AVIC",
    source: "APM2 15.36.16",
    refuses: (state) => has(state, RestrictedInjection | AlternateInjection | SecureAVIC) && state.avic
  },
  {
    name: "Secure AVIC with Restricted or Alternate Injection",
    source: "APM2 15.36.21",
    refuses: (state) => has(state, SecureAVIC) && has(state, RestrictedInjection | AlternateInjection)
  },
  {
    name: "an event other than #HV under Restricted Injection",
    source: "APM2 15.36.16",
    refuses: (state) => {
      const event = injected(state)
      return has(state, RestrictedInjection) && event !== null && !isHv(event)
    }
  },
  {
    name: "injection of a software interrupt, #BP or #OF",
    source: "APM2 15.35",
    refuses: (state) => {
      const event = injected(state)
      return event !== null && isSoftware(event)
    }
  },
  {
    name: "PreventHostIBS while IBS is enabled",
    source: "APM2 15.36",
    refuses: (state) => has(state, PreventHostIBS) && state.ibsEnabled
  },
  {
    name: "SEV_FEATURES not within ALLOWED_SEV_FEATURES",
    source: "APM2 15.36.20",
    refuses: ({ features, allowedFeatures }) => allowedFeatures !== null && (features & ~allowedFeatures) !== 0
  },
  {
    name: "EFER.SVME is clear",
    source: "APM2 15.5.1",
    refuses: ({ efer }) => (efer & EFER_SVME) === 0
  }
]

/** The cause by which VMRUN refuses, null where none applies. */
export const vmrunCause = (state: VmrunState): string | null => {
  for (const { name, refuses } of VMRUN_CAUSES) if (refuses(state)) return name
  return null
}
