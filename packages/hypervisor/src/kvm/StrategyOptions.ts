/**
 * What the published series leave open, or do in two ways, and how each way is called. The first of each is the default.
 * An option concerns the strategies that say so in their design; the others never ask.
 */
export const STRATEGY_OPTIONS = {
  /** When a level's kvm_vcpu is allocated under one descriptor: by the first AP creation for it, or with the vCPU. */
  levelVcpus: ["first-create", "with-vcpu"],
  /** Whose KVM_REQ_UPDATE_PROTECTED_GUEST_STATE carries out an AP creation: the level's own, or the running level's. */
  updateRequest: ["own-level", "running-level"],
  /**
   * What CREATE does to a plane that KVM schedules: it becomes RUNNABLE beside the others, of which one that has halted
   * lets a higher number run; or it becomes the only RUNNABLE one, and a plane that has halted keeps the vCPU. Then an
   * interrupt for plane 0 that comes before the new plane's first entry starves that plane, if plane 0 halts again.
   */
  createdPlane: ["runs-beside", "replaces"]
} as const

export type StrategyOptionName = keyof typeof STRATEGY_OPTIONS

/** A choice for every option. */
export type StrategyOptions = {
  readonly [Option in StrategyOptionName]: (typeof STRATEGY_OPTIONS)[Option][number]
}

export const DEFAULT_STRATEGY_OPTIONS: StrategyOptions = {
  levelVcpus: "first-create",
  updateRequest: "own-level",
  createdPlane: "runs-beside"
}
