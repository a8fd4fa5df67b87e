/**
 * Guest policy bits above the required ABI version (minor in [7:0], major in [15:8]). Bit 17 must be one.
 * @spec SNP-ABI "guest policy"
 */
export const POLICY = {
  SMT: 1n << 16n,
  RESERVED_MUST_BE_ONE: 1n << 17n,
  MIGRATE_MA: 1n << 18n,
  DEBUG: 1n << 19n,
  SINGLE_SOCKET: 1n << 20n
} as const

/** Policy bits that firmware 1.55 knows; later firmware adds CXL, AES-256-XTS, RAPL, ciphertext hiding, page swap. */
const KNOWN_POLICY_BITS = (1n << 21n) - 1n

/** What the platform can promise to a guest. */
export interface PlatformAbilities {
  readonly abiMajor: number
  readonly abiMinor: number
  readonly smtEnabled: boolean
}

/** The migration agent's side of the check. */
export interface AgentPolicy {
  readonly policy: bigint
  readonly migrationAgent: number | null
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
  if (major > platform.abiMajor || (major === platform.abiMajor && minor > platform.abiMinor)) return false
  return (policy & ~KNOWN_POLICY_BITS) === 0n
}
