/** KVM's module parameters for halt polling, virtual ns where they are times. */
export interface HaltPollParameters {
  /** halt_poll_ns: ceiling of a vCPU's window; 0 turns polling off. */
  readonly maximumNs: number
  /** halt_poll_ns_grow and halt_poll_ns_grow_start. */
  readonly grow: number
  readonly growStartNs: number
  /** halt_poll_ns_shrink; 0 closes the window at once. */
  readonly shrink: number
}

/** x86 defaults of Linux 6.8; since 6.12 the window is halved rather than closed. */
export const HALT_POLL: HaltPollParameters = { maximumNs: 200_000, grow: 2, growStartNs: 10_000, shrink: 0 }

const grown = (windowNs: number, { grow, growStartNs }: HaltPollParameters): number =>
  grow === 0 ? windowNs : Math.max(windowNs * grow, growStartNs)

const shrunk = (windowNs: number, { shrink, growStartNs }: HaltPollParameters): number => {
  const less = shrink === 0 ? 0 : Math.floor(windowNs / shrink)
  return less < growStartNs ? 0 : less
}

/**
 * A vCPU's polling window after a halt that lasted `haltedNs`: kept when the wake came within it, grown when a somewhat
 * longer window would have met it, shrunk when none could have.
 * @spec Linux kvm_vcpu_halt
 */
export const nextWindow = (windowNs: number, haltedNs: number, parameters: HaltPollParameters): number => {
  const { maximumNs } = parameters
  if (maximumNs === 0) return 0
  let next = windowNs
  if (haltedNs > windowNs) {
    if (windowNs > 0 && haltedNs > maximumNs) next = shrunk(windowNs, parameters)
    else if (windowNs < maximumNs && haltedNs < maximumNs) next = grown(windowNs, parameters)
  }
  return Math.min(next, maximumNs)
}
