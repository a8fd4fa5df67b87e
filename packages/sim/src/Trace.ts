import type { HostThread } from "./HostThread.ts"

/**
 * What a trace tells apart. The value is a primitive's index (CORE_WAIT for a wait), an exit code, a VMPL, an exit reason
 * or a thread's name.
 */
export type TraceKind =
  | "charge"
  | "core-wait"
  | "VMRUN"
  | "#VMEXIT"
  | "arrived"
  | "vmsa-swap"
  | "vcpu-switch"
  | "KVM_EXIT"
  | "hand-off"

/**
 * Receives what happens on the host's threads, at the moment it happens: `thread.time` is the virtual time at its end,
 * `ns` the virtual nanoseconds that a charge or a wait took, else 0. It must not change anything.
 */
export type TraceSink = (thread: HostThread, kind: TraceKind, value: number | string, ns: number) => void
