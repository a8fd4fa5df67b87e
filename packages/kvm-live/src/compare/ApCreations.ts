import { order, type Session } from "../Session.ts"
import type { Samples } from "../tasks/Task.ts"

/** vCPUs of the largest guest. */
export const AP_CREATE_VCPUS = 64

/** Sizes of guests in tables. */
export const AP_CREATE_SIZES: ReadonlyArray<number> = [1, 2, 4, 8, 16, 32, 64]

/** How a strategy creates a level's objects. */
export interface ApCreation {
  readonly strategy: "vcpu-per-vmpl" | "vm-per-vmpl"
  readonly variant: "vmm-threads" | "vmm-one-thread"
  /** Calls through the binding in a creation after the first, and how many more the first takes. */
  readonly calls: number
  readonly callsOfFirst: number
}

/** Strategies whose AP create takes ioctls of user space; multi-vmpl-vcpu takes none. */
export const AP_CREATIONS: ReadonlyArray<ApCreation> = (["vcpu-per-vmpl", "vm-per-vmpl"] as const).flatMap((strategy) =>
  (["vmm-threads", "vmm-one-thread"] as const).map((variant) => ({
    strategy,
    variant,
    calls: variant === "vmm-threads" ? 5 : 4,
    callsOfFirst: strategy === "vm-per-vmpl" ? 2 : 0
  }))
)

/** Creations of all guests, one after the other: AP_CREATE_VCPUS samples each, the first use of the level first. */
export const runApCreation = (session: Session, creation: ApCreation, guests: number): Promise<Samples> =>
  session.solo(
    order(
      "createLevels",
      { samples: guests * AP_CREATE_VCPUS, warmUp: 0 },
      {
        path: session.path,
        vcpus: AP_CREATE_VCPUS,
        ownVm: creation.strategy === "vm-per-vmpl",
        threads: creation.variant === "vmm-threads"
      }
    )
  )
