import type { HostThread } from "./HostThread.ts"

/** What a trace tells apart. The value is a primitive's index, an exit code, a VMPL, an exit reason or a thread. */
export type TraceKind =
  | "charge"
  | "VMRUN"
  | "#VMEXIT"
  | "arrived"
  | "vmsa-swap"
  | "vcpu-switch"
  | "KVM_EXIT"
  | "hand-off"

/**
 * Receives what happens on the host's threads, at the moment it happens: `thread.time` is the virtual time. It must not
 * change anything.
 */
export type TraceSink = (thread: HostThread, kind: TraceKind, value: number | string) => void
