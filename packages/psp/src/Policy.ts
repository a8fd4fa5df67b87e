/**
 * Guest policy bits above the required ABI version (minor in [7:0], major in [15:8]). Bit 17 must be one.
 * @spec SNP-ABI "guest policy"
 */
export const POLICY = {
  SMT: 1n << 16n,
  RESERVED_MUST_BE_ONE: 1n << 17n,
  MIGRATE_MA: 1n << 18n,
  DEBUG: 1n << 19n,
  SINGLE_SOCKET: 1n << 20n,
  /** CXL devices may be populated. */
  CXL_ALLOW: 1n << 21n,
  /** Memory must be encrypted with AES-256-XTS. */
  MEM_AES_256_XTS: 1n << 22n,
  /** Running Average Power Limit must be off. */
  RAPL_DIS: 1n << 23n,
  CIPHERTEXT_HIDING: 1n << 24n,
  /** PAGE_MOVE, SWAP_OUT and SWAP_IN are not for this guest. */
  PAGE_SWAP_DISABLE: 1n << 25n
} as const

/** Policy bits that every SNP firmware knows: up to SINGLE_SOCKET, as firmware 1.55 has them. */
const BASE_POLICY_BITS = (1n << 21n) - 1n

/** Bits that a firmware reports one by one in its feature information, because the platform must be able to do it. */
const FEATURE_POLICY_BITS = POLICY.CXL_ALLOW | POLICY.MEM_AES_256_XTS | POLICY.RAPL_DIS | POLICY.CIPHERTEXT_HIDING

/** First ABI with the bit PAGE_SWAP_DISABLE. @spec Linux drivers/crypto/ccp sev_get_snp_policy_bits */
const PAGE_SWAP_DISABLE_ABI = { major: 1, minor: 58 } as const

/** What the platform can promise to a guest. */
export interface PlatformAbilities {
  readonly abiMajor: number
  readonly abiMinor: number
  readonly smtEnabled: boolean
  /** Those of the bits 21 to 24 that the platform can promise. */
  readonly policyFeatures: bigint
}

/** The migration agent's side of the check. */
export interface AgentPolicy {
  readonly policy: bigint
  readonly migrationAgent: number | null
}

const hasAbi = (platform: PlatformAbilities, major: number, minor: number): boolean =>
  platform.abiMajor > major || (platform.abiMajor === major && platform.abiMinor >= minor)

/** Policy bits that a firmware knows; the others are reserved to it and must be zero. */
export const knownPolicyBits = (platform: PlatformAbilities): bigint => {
  const { major, minor } = PAGE_SWAP_DISABLE_ABI
  const pageSwap = hasAbi(platform, major, minor) ? POLICY.PAGE_SWAP_DISABLE : 0n
  return BASE_POLICY_BITS | (platform.policyFeatures & FEATURE_POLICY_BITS) | pageSwap
}

/** Whether LAUNCH_START accepts a policy; false is POLICY_FAILURE. @spec SNP-ABI LAUNCH_START */
export const policyAccepted = (policy: bigint, platform: PlatformAbilities, agent: AgentPolicy | null): boolean => {
  const has = (bit: bigint): boolean => (policy & bit) !== 0n
  const minor = Number(policy & 0xffn)
  const major = Number((policy >> 8n) & 0xffn)
  if (agent !== null) {
    if (!has(POLICY.MIGRATE_MA)) return false
    // An agent that could itself be moved by another agent would let that one reach this guest too.
    if (agent.migrationAgent !== null) return false
    if (has(POLICY.SINGLE_SOCKET) && (agent.policy & POLICY.SINGLE_SOCKET) === 0n) return false
  }
  if (!has(POLICY.RESERVED_MUST_BE_ONE)) return false
  if (!has(POLICY.SMT) && platform.smtEnabled) return false
  if (!hasAbi(platform, major, minor)) return false
  return (policy & ~knownPolicyBits(platform)) === 0n
}
