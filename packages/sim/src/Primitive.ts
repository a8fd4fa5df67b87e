/**
 * The elementary steps that cost virtual time. Every latency of this model is a sum of these, charged where the step
 * is taken; a profile gives each its price. The order fixes the index used in counters.
 */
export const PRIMITIVES = [
  "vmexit_sev_snp",
  "vmrun_sev_snp",
  "kvm_dispatch",
  "vc_exception",
  "vmcb_swap_fields",
  "gpa_translate_vmsa",
  "vcpu_load",
  "userspace_exit",
  "userspace_entry",
  "vmm_dispatch",
  "ioctl",
  "thread_handoff_same_core",
  "thread_handoff_cross_core",
  "ipi_kick",
  "tlb_flush_asid",
  "npf_map_4k",
  "rmpupdate_4k",
  "pvalidate_4k",
  "rmpadjust_4k",
  "zero_page_4k",
  "guest_pause",
  "create_vm",
  "memslot_setup",
  "create_vcpu_first",
  "create_vcpu",
  "thread_spawn",
  "launch_update_fixed",
  "launch_update_4k",
  "npf_map_2m",
  "rmpupdate_2m",
  "pvalidate_2m",
  "rmpadjust_2m",
  "zero_page_2m",
  "psmash_2m",
  "port_emulation_in_kernel",
  "vcpu_put",
  "futex_wake",
  "futex_wait",
  "eventfd_signal",
  "eventfd_wait",
  "signal_send",
  "signal_delivery",
  "thread_migration",
  "deep_idle_exit",
  "halt_poll_wake",
  "srcu_grace_period",
  "create_vm_tail",
  "psp_guest_request"
] as const

export type PrimitiveName = (typeof PRIMITIVES)[number]

/** Index of each primitive in a counter array. */
export const PRIMITIVE: { readonly [K in PrimitiveName]: number } = Object.fromEntries(
  PRIMITIVES.map((name, index) => [name, index])
) as { [K in PrimitiveName]: number }

/** How a number came about. */
export type Basis = "measured" | "published" | "assumed"

/**
 * The price of one primitive. `ns` is the median in virtual nanoseconds; `low` and `high` bound what is known of it
 * (uncertainty, not randomness). `quantiles`, where given, is the spread from one execution to the next: a piecewise
 * linear quantile function as [permille, ns] knots from 0 to 1000; without it every execution costs `ns`.
 * `probability`, where given, says of how many in a thousand occasions the step is taken at all, with the range of what
 * is known of that; without it, the code that takes the step knows when.
 */
export interface Cost {
  readonly ns: number
  readonly low: number
  readonly high: number
  readonly basis: Basis
  readonly source: string
  readonly quantiles?: ReadonlyArray<readonly [permille: number, ns: number]> | undefined
  readonly probability?: Probability | undefined
  readonly note?: string | undefined
}

/** How often something happens, in permille; like a price, an input with a range. */
export interface Probability {
  readonly permille: number
  readonly low: number
  readonly high: number
}

/**
 * Primitives of which a source gives only the sum. Where a path takes all of them equally often, the time counts with
 * the basis of the sum; the split stays an assumption.
 */
export interface CostSum {
  readonly primitives: ReadonlyArray<PrimitiveName>
  readonly ns: number
  /** Bounds of what is known of the sum; without them nothing is known but `ns`. */
  readonly low?: number | undefined
  readonly high?: number | undefined
  readonly basis: Basis
  readonly source: string
}

/** One machine's prices. */
export interface Profile {
  readonly name: string
  readonly machine: string
  /** Core clock that the prices belong to, in MHz; a profile of another machine can be derived only with it. */
  readonly clockMhz?: number | undefined
  readonly primitives: { readonly [K in PrimitiveName]: Cost }
  readonly sums: ReadonlyArray<CostSum>
}
