import { KVM_EXIT, REGS, RUN, SYNC_REGS } from "../kvm/Abi.ts"
import { attach } from "./KvmRun.ts"
import { collect, type Samples, type SharedVcpu, type TaskContext } from "./Task.ts"

/** Two vCPUs, a level each, that one thread runs in turn. A sample is one round trip. */
export const oneThreadTrips = (
  context: TaskContext,
  { vcpus }: { readonly vcpus: readonly [SharedVcpu, SharedVcpu] }
): Samples => {
  const { os } = context
  const asks = attach(os, vcpus[0])
  const answers = attach(os, vcpus[1])
  return collect(context, () => {
    const begin = os.now()
    asks.runToPortWrite()
    answers.runToPortWrite()
    return os.now() - begin
  })
}

/**
 * Two levels in one vCPU whose registers user space swaps at each exit: the other level's go in, its own are kept. A
 * sample is one round trip.
 */
export const swappedTrips = (
  context: TaskContext,
  { vcpu, other }: { readonly vcpu: SharedVcpu; readonly other: Uint8Array }
): Samples => {
  const { os } = context
  const guest = attach(os, vcpu)
  const { view, octets } = guest.run
  const live = octets.subarray(RUN.regs, RUN.regs + REGS.BYTES)
  const waiting = Uint8Array.from(other)
  const kept = new Uint8Array(REGS.BYTES)
  view.setBigUint64(RUN.kvm_valid_regs, BigInt(SYNC_REGS.REGS), true)
  // The level that asks runs to its first call; from then on the two take turns.
  guest.runToPortWrite()
  const swapAndRun = (): void => {
    kept.set(live)
    live.set(waiting)
    waiting.set(kept)
    view.setUint32(RUN.kvm_dirty_regs, SYNC_REGS.REGS, true)
    const entered = guest.enter()
    if (entered !== 0 || guest.exitReason !== KVM_EXIT.IO) throw guest.unexpected(entered)
  }
  return collect(context, () => {
    const begin = os.now()
    swapAndRun()
    swapAndRun()
    return os.now() - begin
  })
}
