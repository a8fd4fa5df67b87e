/** What one operation, or one access of it, led to. */
export const STEP = {
  DONE: 0,
  /** #VMEXIT(NPF): the operation restarts after the hypervisor has dealt with it. */
  NPF: 1,
  /** #VC PAGE_NOT_VALIDATED. */
  VC_NOT_VALIDATED: 2,
  /** #GP(0). */
  GP: 3,
  /** A non-automatic exit: #VC with the exit code of the intercepted instruction, in `cpu.exitCode`. */
  VC_NAE: 4,
  VMGEXIT: 5,
  /** An automatic exit with `cpu.exitCode` and its information, after the instruction. */
  EXIT: 6,
  /** #PF in the guest, with CR2 and an error code. */
  PF: 7,
  UD: 8,
  /** #VC with the exit code NPF: the nested leaf has a reserved bit set, as of a device. */
  VC_NPF: 9,
  /** HLT without an intercept: nothing more until an event. */
  HALTED: 10,
  /** Done, and no interrupt is taken before the next instruction. */
  SHADOW: 11,
  /** A far jump: RIP is where it leads. */
  JUMPED: 12,
  /** The guest's own work, which takes time. */
  WORK: 13,
  /** What is worked out outside of the simulation has no answer yet. */
  UNANSWERED: 14
} as const

export type Step = (typeof STEP)[keyof typeof STEP]
