/**
 * What live measurements ask of the operating system. There are two: Linux through a foreign function interface, and a
 * recorded session of the same calls. Calls answer as system calls do: a negative result is `-errno`.
 */
export interface Os {
  /** `linux`, or `recording`: which of the two answers. */
  readonly kind: "linux" | "recording"
  /** Monotonic nanoseconds, the same clock in all threads of the process. */
  readonly now: () => number
  readonly open: (path: string) => number
  readonly close: (fd: number) => number
  /** A call of the C library that does nothing, with the arguments of an ioctl: what the way there costs. */
  readonly nothing: (fd: number, request: number, argument: number) => number
  readonly ioctl: (fd: number, request: number, argument: number) => number
  /** An ioctl that reads or fills a structure. */
  readonly ioctlBuffer: (fd: number, request: number, argument: Uint8Array) => number
  /** KVM_RUN of a vCPU with its shared page. */
  readonly kvmRun: (fd: number, run: Mapping) => number
  /** Pages of a file descriptor, shared; -1 for anonymous memory. */
  readonly mmap: (fd: number, bytes: number) => Mapping | number
  /** The same pages as another thread sees them. */
  readonly remap: (address: bigint, bytes: number) => Mapping
  readonly munmap: (mapping: Mapping) => number
  readonly eventfd: () => number
  /** Reads or writes the eight bytes of an eventfd's counter. */
  readonly eventfdRead: (fd: number) => number
  readonly eventfdWrite: (fd: number) => number
  /** Sleeps on the word while it holds `value`. @returns what it holds then: `value` after FUTEX_TIMEOUT_MS or a signal */
  readonly waitWhile: (word: FutexWord, value: number) => number
  /** Stores into the word and wakes whoever sleeps on it. */
  readonly storeAndWake: (word: FutexWord, value: number) => void
  /** The same two by Atomics.wait and Atomics.notify, on memory that JavaScript shares. */
  readonly atomicsWaitWhile: (words: Int32Array<SharedArrayBuffer>, index: number, value: number) => number
  readonly atomicsStoreAndNotify: (words: Int32Array<SharedArrayBuffer>, index: number, value: number) => void
  /** Reads 32 bits that somebody else may have written. */
  readonly load32: (mapping: Mapping, offset: number) => number
  /** Stores 32 bits for somebody else to see. */
  readonly store32: (mapping: Mapping, offset: number, value: number) => void
  /** Pins the calling thread to a CPU; -1 lets it run on all. */
  readonly pin: (cpu: number) => number
  /** CPUs that the calling thread may use. */
  readonly cpus: () => ReadonlyArray<number>
  readonly threadId: () => number
  /** Keeps the CPU busy for a while. */
  readonly spin: (ns: number) => void
  /** pthread_create of a thread that ends at once, and pthread_join. */
  readonly createThread: () => number
  readonly joinThread: () => number
  /** Gives the kick signal a handler that does nothing, for the whole process: it then ends system calls with EINTR. */
  readonly handleKick: () => number
  /** Sends the kick signal to a thread of this process. */
  readonly kick: (threadId: number) => number
}

/** Memory that the kernel and this process share. */
export interface Mapping {
  readonly address: bigint
  readonly bytes: number
  readonly view: DataView
  readonly words: Int32Array
  readonly octets: Uint8Array
}

/** A 32-bit word of a mapping on which threads wait. */
export interface FutexWord {
  readonly address: bigint
  readonly words: Int32Array
  readonly index: number
}

/** The word at a byte offset, a multiple of 4. */
export const futexWord = ({ address, words }: Mapping, offset: number): FutexWord => ({
  address: address + BigInt(offset),
  words,
  index: offset / 4
})

/** A partner that died never wakes anybody: a wait this long ends by itself. */
export const FUTEX_TIMEOUT_MS = 500

/** The real-time signal that makes KVM_RUN return: SIGRTMIN + 6 of glibc, which no other library here uses. */
export const KICK_SIGNAL = 40
