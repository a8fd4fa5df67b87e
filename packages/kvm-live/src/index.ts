/**
 * A real /dev/kvm, measured: transitions between guest, KVM, user space and threads, without SEV hardware. Its figures
 * become the costs of a profile; the strategies' choreography on it is what the model is held against.
 */
export * from "./compare/ApCreations.ts"
export * from "./compare/Choreography.ts"
export * from "./KvmDevice.ts"
export * from "./LiveFailed.ts"
export type { LiveCase } from "./measure/Case.ts"
export * from "./measure/Measure.ts"
export * from "./measure/Primitives.ts"
export * from "./measure/Profile.ts"
export * from "./measure/Statistics.ts"
export * from "./os/Recording.ts"
export * from "./Probe.ts"
export { Session } from "./Session.ts"
