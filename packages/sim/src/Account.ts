import { PRIMITIVES, type PrimitiveName } from "./Primitive.ts"

/**
 * What a host thread's time went into, as indices of `HostThread.account` (virtual ns). The first four are time on a
 * core; STEAL is time it could have run while other threads held the cores. What is left of its life it slept.
 */
export const ACCOUNT = { GUEST: 0, KERNEL: 1, USER: 2, POLL: 3, STEAL: 4 } as const
export type AccountName = keyof typeof ACCOUNT

export const ACCOUNTS = Object.keys(ACCOUNT) as ReadonlyArray<AccountName>

/** Steps of guest software; the world switch itself, VMRUN and #VMEXIT, is the host's. */
const GUEST_STEPS: ReadonlySet<PrimitiveName> = new Set([
  "vc_exception",
  "pvalidate_4k",
  "rmpadjust_4k",
  "zero_page_4k",
  "pvalidate_2m",
  "rmpadjust_2m",
  "zero_page_2m",
  "guest_pause"
])

/** Steps of the VMM outside the kernel. */
const USER_STEPS: ReadonlySet<PrimitiveName> = new Set(["vmm_dispatch"])

/** The account of each primitive: all that is neither the guest's nor the VMM's is the kernel's. */
export const ACCOUNT_OF: Uint8Array = Uint8Array.from(PRIMITIVES, (name) => {
  if (GUEST_STEPS.has(name)) return ACCOUNT.GUEST
  return USER_STEPS.has(name) ? ACCOUNT.USER : ACCOUNT.KERNEL
})

/** Sum of the accounts of some threads: a guest vCPU's, a VM's. */
export const sumAccounts = (threads: Iterable<{ readonly account: Float64Array }>): Float64Array => {
  const sum = new Float64Array(ACCOUNTS.length)
  for (const { account } of threads) for (let i = 0; i < sum.length; i++) sum[i]! += account[i]!
  return sum
}

/** Time on a core, idle polling included, virtual ns. */
export const cpuTime = (account: Float64Array): number =>
  account[ACCOUNT.GUEST]! + account[ACCOUNT.KERNEL]! + account[ACCOUNT.USER]! + account[ACCOUNT.POLL]!

/** Time on a core that is the host's and not the guest's: kernel, VMM and idle polling, virtual ns. */
export const hostTime = (account: Float64Array): number => cpuTime(account) - account[ACCOUNT.GUEST]!
