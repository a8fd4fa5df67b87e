/** Events of a vCPU that wait to be injected, or whose delivery an exit interrupted. */
export class VcpuEvents {
  /** NMIs asked for: at most two, one in delivery and one behind it. */
  nmiPending = 0
  /** HF_NMI_MASK: an NMI was injected and the guest has not said that it is complete. */
  nmiMasked = false
  /** Delivery was interrupted: to be injected again. -1 is none. */
  interrupt = -1
  nmi = false
  exception = -1
  exceptionHasError = false
  exceptionError = 0
  reinject = false
}
