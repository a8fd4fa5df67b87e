/**
 * Policy bits of SEV and SEV-ES guests; the API version that the guest requires stands above them, major in [23:16] and
 * minor in [31:24]. Bits [15:6] must be zero.
 * @spec SEV-API "guest policy"
 */
export const SEV_POLICY = {
  /** The host may not decrypt or encrypt the guest's memory to debug it. */
  NODBG: 1 << 0,
  /** The memory key is not shared with another guest. */
  NOKS: 1 << 1,
  /** The register state is encrypted. */
  ES: 1 << 2,
  /** The guest is not sent to another platform. */
  NOSEND: 1 << 3,
  /** The guest is not sent out of its domain. */
  DOMAIN: 1 << 4,
  /** The guest is not sent to a platform without SEV. */
  SEV: 1 << 5
} as const

const RESERVED = 0xffc0

/** API version of a firmware. */
export interface SevApi {
  readonly apiMajor: number
  readonly apiMinor: number
}

/** The policy's bits with the API version that the guest requires. */
export const sevPolicy = (bits: number, { apiMajor, apiMinor }: SevApi): number =>
  (bits | (apiMajor << 16) | (apiMinor << 24)) >>> 0

/**
 * Whether the firmware fulfils a policy; false is POLICY_FAILURE. It looks only where the guest's owner has opened a
 * session: without one nobody is there to be protected. @spec SEV-API LAUNCH_START
 */
export const sevPolicyAccepted = (policy: number, { apiMajor, apiMinor }: SevApi): boolean => {
  const major = (policy >>> 16) & 0xff
  const minor = policy >>> 24
  return (apiMajor > major || (apiMajor === major && apiMinor >= minor)) && (policy & RESERVED) === 0
}
