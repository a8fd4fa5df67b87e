import { GUEST_BUFFER_COST } from "../GuestBuffer.ts"
import type { StoreSteps } from "./StoredVariables.ts"

/**
 * What management mode costs beside the copies of its messages, virtual ns. All are assumed, without a source: a message
 * is told apart and its fields are checked; a stored variable's name is compared; a signature of RSA-2048 is verified
 * with its chain, in code without vector instructions.
 */
export const UEFI_MM_COST = { MESSAGE: 300, COMPARE: 15, VERIFY: 250_000 } as const

/** The time of what a store has done, and forgets that it did. */
export const takeStoreTime = (steps: StoreSteps): number => {
  const { compared, copied, verified } = steps
  steps.compared = 0
  steps.copied = 0
  steps.verified = 0
  const copies = Math.ceil((copied * GUEST_BUFFER_COST.COPY_KIB) / 1024)
  return compared * UEFI_MM_COST.COMPARE + copies + verified * UEFI_MM_COST.VERIFY
}
