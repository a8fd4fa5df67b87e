import type { VmmOperations } from "@vmpl-lab/hypervisor"

/** A way to instantiate and run VMPLs, as a user chooses it. */
export interface Strategy {
  /** The key of the command line and of results. */
  readonly key: string
  /** Who performs the switch, where a strategy leaves a choice; null where it does not. */
  readonly variant: string | null
  /** One line for tables. */
  readonly summary: string
  readonly operations: VmmOperations
}

/** How a strategy is named on the command line and in tables: `key`, or `key/variant`. */
export const strategyName = ({ key, variant }: Pick<Strategy, "key" | "variant">): string =>
  variant === null ? key : `${key}/${variant}`
