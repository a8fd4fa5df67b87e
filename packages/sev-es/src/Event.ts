// @section 4.1, 4.3
/** Types of an injected event, bits 10:8 of EVENTINJ. @spec APM2 15.20 */
export const EVENT_TYPE = { INTR: 0, NMI: 2, EXCEPTION: 3, SOFT_INT: 4 } as const

/** Exception vectors that this model names. @spec APM2 8.2 */
export const VECTOR = { DB: 1, NMI: 2, BP: 3, OF: 4, UD: 6, DF: 8, GP: 13, PF: 14, MC: 18, HV: 28, VC: 29 } as const

/** Vector of #HV, the only event that restricted injection lets through. @spec APM2 15.36.16 */
export const VECTOR_HV = VECTOR.HV

/** Lower half of EVENTINJ: the valid bit, above all others. */
export const EVENT_INJECTION_VALID = 0x8000_0000

/** EVENTINJ: vector 7:0, type 10:8, error code valid 11, valid 31; the error code is the upper half. */
export interface EventInjection {
  readonly vector: number
  readonly type: number
  readonly errorCodeValid: boolean
  readonly valid: boolean
}

/** The lower half of EVENTINJ as its fields. */
export const decodeEventInjection = (lo: number): EventInjection => ({
  vector: lo & 0xff,
  type: (lo >>> 8) & 7,
  errorCodeValid: (lo & 0x800) !== 0,
  valid: (lo & 0x8000_0000) !== 0
})

export const encodeEventInjection = ({ vector, type, errorCodeValid, valid }: EventInjection): number =>
  ((vector & 0xff) | ((type & 7) << 8) | (errorCodeValid ? 0x800 : 0) | (valid ? 0x8000_0000 : 0)) >>> 0

/** Lower half of a valid EVENTINJ: an external interrupt. */
export const injectInterrupt = (vector: number): number =>
  encodeEventInjection({ vector, type: EVENT_TYPE.INTR, errorCodeValid: false, valid: true })

/** Lower half of a valid EVENTINJ: an NMI. */
export const INJECT_NMI = encodeEventInjection({
  vector: VECTOR.NMI,
  type: EVENT_TYPE.NMI,
  errorCodeValid: false,
  valid: true
})

/** Lower half of a valid EVENTINJ: an exception. */
export const injectException = (vector: number, errorCodeValid: boolean): number =>
  encodeEventInjection({ vector, type: EVENT_TYPE.EXCEPTION, errorCodeValid, valid: true })

/** VINTR_CTRL of the VMSA, used under alternate injection; halves as bit positions in 64 bits. @spec APM2 15.36.16 */
export const VINTR_CTRL = {
  TPR: { bit: 0, bits: 8 },
  IRQ: { bit: 8, bits: 1 },
  GIF: { bit: 9, bits: 1 },
  INTR_SHADOW: { bit: 10, bits: 1 },
  NMI: { bit: 11, bits: 1 },
  NMI_MASK: { bit: 12, bits: 1 },
  INTR_PRIO: { bit: 16, bits: 4 },
  IGN_TPR: { bit: 20, bits: 1 },
  NMI_ENABLE: { bit: 26, bits: 1 },
  INTR_VECTOR: { bit: 32, bits: 8 },
  BUSY: { bit: 63, bits: 1 }
} as const
