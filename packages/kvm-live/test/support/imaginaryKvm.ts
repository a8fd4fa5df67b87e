import { KVM, KVM_API_VERSION, KVM_EXIT, RUN } from "../../src/kvm/Abi.ts"
import type { Mapping, Os } from "../../src/os/Os.ts"

/** What is open on an imaginary machine, and every call that was made. */
export interface Imaginary {
  readonly os: Os
  readonly open: Set<number>
  readonly mapped: Set<bigint>
  readonly calls: Array<string>
}

export interface ImaginaryOptions {
  /** The call that fails, by its number from 0, and how. */
  readonly fails?: { readonly call: number; readonly errno: number }
  /** What KVM_RUN comes back with. */
  readonly exitReason?: number
  /** KVM_CHECK_EXTENSION's answer. */
  readonly capability?: number
}

const EINTR = 4

/**
 * A machine whose KVM does at once what it is asked: guests write to their port at each KVM_RUN, whoever waits is woken,
 * every call takes 100 ns. It keeps count of what is open.
 */
export const imaginaryKvm = ({ fails, exitReason = KVM_EXIT.IO, capability = 1 }: ImaginaryOptions = {}): Imaginary => {
  const open = new Set<number>()
  const mapped = new Set<bigint>()
  const calls: Array<string> = []
  let time = 0
  let nextFd = 3
  let nextAddress = 0x10_0000n
  const call = (name: string, succeed: () => number): number => {
    time += 100
    calls.push(name)
    return fails !== undefined && calls.length - 1 === fails.call ? -fails.errno : succeed()
  }
  const newFd = (): number => {
    open.add(nextFd)
    return nextFd++
  }
  const memory = (address: bigint, bytes: number): Mapping => {
    const buffer = new ArrayBuffer(bytes)
    return { address, bytes, view: new DataView(buffer), words: new Int32Array(buffer), octets: new Uint8Array(buffer) }
  }
  const mappings = new Map<bigint, Mapping>()
  const answer = (request: number): number => {
    switch (request) {
      case KVM.GET_API_VERSION:
        return KVM_API_VERSION
      case KVM.GET_VCPU_MMAP_SIZE:
        return 0x3000
      case KVM.CREATE_VM:
      case KVM.CREATE_VCPU:
        return newFd()
      case KVM.CHECK_EXTENSION:
        return capability
      default:
        return 0
    }
  }
  const NAMES = new Map<number, string>(Object.entries(KVM).map(([name, value]) => [value, `KVM_${name}`]))
  const os: Os = {
    kind: "recording",
    now: () => {
      time += 10
      return time
    },
    open: () => call("open", newFd),
    close: (fd) => {
      if (!open.delete(fd)) throw new Error(`${fd} is closed twice`)
      return 0
    },
    nothing: () => 0,
    ioctl: (_, request) => call(NAMES.get(request) ?? String(request), () => answer(request)),
    ioctlBuffer: (_, request) => call(NAMES.get(request) ?? String(request), () => 0),
    kvmRun: (_, run) =>
      call("KVM_RUN", () => {
        if (run.octets[RUN.immediate_exit] !== 0) return -EINTR
        run.view.setUint32(RUN.exit_reason, exitReason, true)
        return 0
      }),
    mmap: (_, bytes) => {
      const result = call("mmap", () => 0)
      if (result < 0) return result
      const mapping = memory(nextAddress, bytes)
      nextAddress += 0x100_0000n
      mapped.add(mapping.address)
      mappings.set(mapping.address, mapping)
      return mapping
    },
    remap: (address) => mappings.get(address)!,
    munmap: ({ address }) => {
      if (!mapped.delete(address)) throw new Error(`${address} is unmapped twice`)
      return 0
    },
    eventfd: () => call("eventfd", newFd),
    eventfdRead: () => call("read of an eventfd", () => 8),
    eventfdWrite: () => call("write of an eventfd", () => 8),
    waitWhile: (_, value) => value + 1,
    storeAndWake: () => {},
    atomicsWaitWhile: (_, __, value) => value + 1,
    atomicsStoreAndNotify: () => {},
    load32: () => 0x7fff_ffff,
    store32: () => {},
    pin: () => call("sched_setaffinity", () => 0),
    cpus: () => [0, 1],
    threadId: () => 1,
    spin: () => {},
    createThread: () => call("pthread_create", () => 0),
    joinThread: () => call("pthread_join", () => 0),
    handleKick: () => call("sigaction", () => 0),
    kick: () => call("tgkill", () => 0)
  }
  return { os, open, mapped, calls }
}
