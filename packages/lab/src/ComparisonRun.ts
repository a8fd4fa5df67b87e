import type { InterruptRecord } from "./InterruptRun.ts"
import type { AcceptanceRecord, BootRecord, HostRecord, PanicRecord } from "./WorkloadRecord.ts"

/** The three operations a comparison reports. */
export const OPERATIONS = ["ap-create", "run-vmpl-round-trip", "run-vmpl-one-way"] as const
export type OperationName = (typeof OPERATIONS)[number]

/** What the host did, in the order of the `perSwitch` keys of the JSON result. */
export const COUNTERS = ["vmExits", "userExits", "ioctls", "threadHandOffs", "kicks", "tlbFlushes"] as const
export type CounterName = (typeof COUNTERS)[number]

/** Everything recorded about one operation under one strategy. Times are virtual nanoseconds. */
export interface OperationRecord {
  readonly operation: OperationName
  /** One latency per operation, in the order of completion. */
  readonly ns: ReadonlyArray<number>
  /** VMPL switches in one operation: 2 for a round trip, 1 for a one-way and for an AP create. */
  readonly switchesPerOperation: number
  /** Totals over all samples. */
  readonly counters: { readonly [K in CounterName]: number }
  /** Total virtual nanoseconds over all samples by primitive index (sim PRIMITIVES); they add up to the sum of `ns`. */
  readonly nsByPrimitive: ReadonlyArray<number>
  /** How often each primitive was charged over all samples, by primitive index. */
  readonly countByPrimitive: ReadonlyArray<number>
  /** The same latencies by what was asked for, where that matters: an AP create by VMPL and request. */
  readonly groups: ReadonlyArray<LatencyGroup>
}

/** Samples of one kind inside an operation, such as "VMPL2 CREATE". */
export interface LatencyGroup {
  readonly name: string
  readonly ns: ReadonlyArray<number>
}

/** Objects that the host holds once the guest is up. */
export interface HostObjects {
  readonly vms: number
  readonly vcpus: number
  readonly vmcbs: number
  readonly lapics: number
  readonly threads: number
  readonly nestedPageTables: number
}

/** The outcome of the scenario under one strategy. */
export interface StrategyRun {
  readonly strategy: string
  readonly variant: string | null
  readonly summary: string
  readonly operations: ReadonlyArray<OperationRecord>
  /** What became of the interrupts, by source and level; absent where the scenario has none. */
  readonly interrupts?: ReadonlyArray<InterruptRecord>
  readonly hostObjects: HostObjects
  readonly guestVcpus: number
  /** What the host spent on the guest of the first boot. */
  readonly host: HostRecord
  readonly boot: BootRecord
  /** Memory that the guest accepted; null where it accepted none. */
  readonly acceptance: AcceptanceRecord | null
  /** Null where the SVSM does not act as COCONUT-SVSM. */
  readonly coconutPanics: ReadonlyArray<PanicRecord> | null
  /** SHA-256 over the final machine: RMP, memory, VMSAs, virtual time, counters. Hex. */
  readonly stateDigest: string
  /** SHA-256 over what the guest saw (its calls and their results): must not depend on the strategy. Hex. */
  readonly guestDigest: string
  /** Virtual time at which the last vCPU finished. */
  readonly virtualNs: number
  /** Virtual time the launch took, from the first RMPUPDATE to LAUNCH_FINISH. */
  readonly launchNs: number
  /** Host wall time of this strategy's simulation. */
  readonly wallMs: number
}

/** The whole comparison: one launch digest, because every strategy launches the same image. */
export interface ComparisonRun {
  readonly launchDigest: string
  readonly firmware: { readonly name: string; readonly bytes: number; readonly sha256: string }
  readonly runs: ReadonlyArray<StrategyRun>
}
