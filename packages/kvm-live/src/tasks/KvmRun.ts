import { KVM_EXIT, REGS, RUN, SYNC_REGS } from "../kvm/Abi.ts"
import { KvmVcpu } from "../kvm/KvmVcpu.ts"
import type { Os } from "../os/Os.ts"
import { collect, type Samples, type SharedVcpu, type TaskContext } from "./Task.ts"

/** The vCPU of another thread's making, as this thread uses it. */
export const attach = (os: Os, { fd, run }: SharedVcpu): KvmVcpu =>
  new KvmVcpu(os, fd, os.remap(run.address, run.bytes))

/** Which registers KVM copies out to and in from the shared page at each KVM_RUN. */
export type Synced = "none" | "regs" | "regs and sregs"

const SYNC_BITS: { readonly [K in Synced]: number } = {
  none: 0,
  regs: SYNC_REGS.REGS,
  "regs and sregs": SYNC_REGS.REGS | SYNC_REGS.SREGS
}

/** One KVM_RUN: into the guest, to its port write, and back to user space. */
export const portWrite = (
  context: TaskContext,
  { vcpu, synced }: { readonly vcpu: SharedVcpu; readonly synced: Synced }
): Samples => {
  const { os } = context
  const guest = attach(os, vcpu)
  const { view } = guest.run
  const bits = SYNC_BITS[synced]
  guest.runToPortWrite()
  view.setBigUint64(RUN.kvm_valid_regs, BigInt(bits), true)
  // The first run fills the registers; from then on they go both ways.
  guest.runToPortWrite()
  const samples = collect(context, () => {
    if (bits !== 0) view.setUint32(RUN.kvm_dirty_regs, bits, true)
    const begin = os.now()
    const entered = guest.enter()
    const ns = os.now() - begin
    if (entered !== 0 || guest.exitReason !== KVM_EXIT.IO) throw guest.unexpected(entered)
    return ns
  })
  view.setBigUint64(RUN.kvm_valid_regs, 0n, true)
  return samples
}

/** KVM_RUN with immediate_exit: the vCPU is loaded and put, the guest not entered. */
export const immediateExit = (context: TaskContext, { vcpu }: { readonly vcpu: SharedVcpu }): Samples => {
  const { os } = context
  const guest = attach(os, vcpu)
  guest.immediateExit = true
  const samples = collect(context, () => {
    const begin = os.now()
    const entered = guest.enter()
    const ns = os.now() - begin
    if (entered !== -4) throw guest.unexpected(entered)
    return ns
  })
  guest.immediateExit = false
  return samples
}

/** Turns in one sample of the long loop and of the short one, whose difference is the slope. */
const TURNS = { long: 65, short: 1 }

/** One turn of a loop in the guest that RSI counts, without the way in and out: the slope over its length. */
export const loopSlope = (context: TaskContext, { vcpu }: { readonly vcpu: SharedVcpu }): Samples => {
  const { os } = context
  const guest = attach(os, vcpu)
  const { view } = guest.run
  view.setBigUint64(RUN.kvm_valid_regs, BigInt(SYNC_REGS.REGS), true)
  guest.runToPortWrite()
  const loop = (turns: number): number => {
    view.setUint32(RUN.regs + REGS.rsi, turns, true)
    view.setUint32(RUN.kvm_dirty_regs, SYNC_REGS.REGS, true)
    const begin = os.now()
    guest.runToPortWrite()
    return os.now() - begin
  }
  return collect(context, () => (loop(TURNS.long) - loop(TURNS.short)) / (TURNS.long - TURNS.short))
}

/** One KVM_RUN while two vCPUs take turns on one thread. */
export const alternate = (
  context: TaskContext,
  { vcpus }: { readonly vcpus: readonly [SharedVcpu, SharedVcpu] }
): Samples => {
  const { os } = context
  const guests = vcpus.map((vcpu) => attach(os, vcpu))
  let turn = 0
  return collect(context, () => {
    const guest = guests[turn]!
    turn = 1 - turn
    const begin = os.now()
    guest.runToPortWrite()
    return os.now() - begin
  })
}

/** KVM_GET_REGS or KVM_SET_REGS: registers by an ioctl of their own. */
export const registerIoctl = (
  context: TaskContext,
  { vcpu, name }: { readonly vcpu: SharedVcpu; readonly name: "GET_REGS" | "SET_REGS" | "GET_SREGS" | "SET_SREGS" }
): Samples => {
  const { os } = context
  const guest = attach(os, vcpu)
  const sregs = name.endsWith("SREGS")
  const buffer = new Uint8Array(sregs ? 312 : REGS.BYTES)
  guest.registers(sregs ? "GET_SREGS" : "GET_REGS", buffer)
  return collect(context, () => {
    const begin = os.now()
    guest.registers(name, buffer)
    return os.now() - begin
  })
}
