import { endianness } from "node:os"
import koffi from "koffi"
import { KVM } from "../kvm/Abi.ts"
import { LiveFailed } from "../LiveFailed.ts"
import { FUTEX_TIMEOUT_MS, KICK_SIGNAL, type Mapping, type Os } from "./Os.ts"

const O_RDWR_CLOEXEC = 0x8_0002
const PROT_READ_WRITE = 3
const MAP_SHARED = 0x01
const MAP_ANONYMOUS = 0x20
const EFD_CLOEXEC = 0x8_0000
const SYS_FUTEX = 202
const SYS_TGKILL = 234
const FUTEX_WAIT_PRIVATE = 128
const FUTEX_WAKE_PRIVATE = 129
const CPU_SET_BYTES = 128
const ETIMEDOUT = 110
const EINTR = 4

/** glibc's struct sigaction: handler, mask, flags, restorer, which glibc fills in itself. */
const SIGACTION_BYTES = 152

/** The functions of glibc that are used, with one signature of each variadic one per way to call it. */
const bind = () => {
  const libc = koffi.load("libc.so.6")
  return {
    open: libc.func("open", "int", ["str", "int"]),
    close: libc.func("close", "int", ["int"]),
    // abs() looks at its first argument only.
    nothing: libc.func("abs", "int", ["int", "ulong", "long"]),
    ioctl: libc.func("ioctl", "int", ["int", "ulong", "long"]),
    ioctlBuffer: libc.func("ioctl", "int", ["int", "ulong", "void *"]),
    mmap: libc.func("mmap", "void *", ["intptr_t", "size_t", "int", "int", "int", "long"]),
    munmap: libc.func("munmap", "int", ["void *", "size_t"]),
    eventfd: libc.func("eventfd", "int", ["uint", "int"]),
    read: libc.func("read", "long", ["int", "void *", "size_t"]),
    write: libc.func("write", "long", ["int", "void *", "size_t"]),
    futex: libc.func("syscall", "long", ["long", "void *", "int", "int", "void *", "long", "int"]),
    sigaction: libc.func("sigaction", "int", ["int", "void *", "void *"]),
    dlsym: libc.func("dlsym", "void *", ["void *", "str"]),
    pthreadCreate: libc.func("pthread_create", "int", ["void *", "void *", "void *", "void *"]),
    pthreadJoin: libc.func("pthread_join", "int", ["uint64_t", "void *"]),
    tgkill: libc.func("syscall", "long", ["long", "int", "int", "int"]),
    gettid: libc.func("gettid", "int", []),
    setaffinity: libc.func("sched_setaffinity", "int", ["int", "size_t", "void *"]),
    getaffinity: libc.func("sched_getaffinity", "int", ["int", "size_t", "void *"])
  }
}

const mapping = (address: bigint, bytes: number): Mapping => {
  const buffer = koffi.view(address, bytes)
  return {
    address,
    bytes,
    view: new DataView(buffer),
    words: new Int32Array(buffer),
    octets: new Uint8Array(buffer)
  }
}

/**
 * Linux on x86-64 with glibc. Every call goes through koffi: about 0.1 us, measured and subtracted where it matters.
 * @throws LiveFailed on another system
 */
export const linux = (): Os => {
  if (process.platform !== "linux" || process.arch !== "x64" || endianness() !== "LE") {
    throw new LiveFailed({ why: `live measurements need Linux on x86-64, this is ${process.platform} ${process.arch}` })
  }
  const libc = bind()
  const result = (value: number): number => (value < 0 ? -koffi.errno() : value)
  const counter = new Uint8Array(8)
  const one = new Uint8Array(8)
  one[0] = 1
  const timeout = new Uint8Array(16)
  new DataView(timeout.buffer).setBigInt64(8, BigInt(FUTEX_TIMEOUT_MS * 1_000_000), true)
  const thread = new Uint8Array(8)
  const threadView = new DataView(thread.buffer)
  const now = (): number => Number(process.hrtime.bigint())
  // abs() once more: it returns at once, whatever it is given.
  const idle: bigint = libc.dlsym(null, "abs")
  let allowed: Uint8Array | null = null
  const affinity = (): Uint8Array => {
    const set = new Uint8Array(CPU_SET_BYTES)
    libc.getaffinity(0, CPU_SET_BYTES, set)
    return set
  }
  return {
    kind: "linux",
    now,
    open: (path) => result(libc.open(path, O_RDWR_CLOEXEC)),
    close: (fd) => result(libc.close(fd)),
    nothing: (fd, request, argument) => result(libc.nothing(fd, request, argument)),
    ioctl: (fd, request, argument) => result(libc.ioctl(fd, request, argument)),
    ioctlBuffer: (fd, request, argument) => result(libc.ioctlBuffer(fd, request, argument)),
    kvmRun: (fd) => result(libc.ioctl(fd, KVM.RUN, 0)),
    mmap: (fd, bytes) => {
      const flags = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED
      const address: bigint = libc.mmap(0, bytes, PROT_READ_WRITE, flags, fd, 0)
      return address === 0xffff_ffff_ffff_ffffn ? -koffi.errno() : mapping(address, bytes)
    },
    remap: mapping,
    munmap: ({ address, bytes }) => result(libc.munmap(address, bytes)),
    eventfd: () => result(libc.eventfd(0, EFD_CLOEXEC)),
    eventfdRead: (fd) => result(libc.read(fd, counter, 8)),
    eventfdWrite: (fd) => result(libc.write(fd, one, 8)),
    waitWhile: ({ address, words, index }, value) => {
      while (Atomics.load(words, index) === value) {
        const waited = result(libc.futex(SYS_FUTEX, address, FUTEX_WAIT_PRIVATE, value, timeout, 0, 0))
        if (waited === -ETIMEDOUT || waited === -EINTR) break
      }
      return Atomics.load(words, index)
    },
    storeAndWake: ({ address, words, index }, value) => {
      Atomics.store(words, index, value)
      libc.futex(SYS_FUTEX, address, FUTEX_WAKE_PRIVATE, 1, null, 0, 0)
    },
    atomicsWaitWhile: (words, index, value) => {
      Atomics.wait(words, index, value, FUTEX_TIMEOUT_MS)
      return Atomics.load(words, index)
    },
    atomicsStoreAndNotify: (words, index, value) => {
      Atomics.store(words, index, value)
      Atomics.notify(words, index, 1)
    },
    load32: ({ words }, offset) => Atomics.load(words, offset / 4),
    store32: ({ words }, offset, value) => {
      Atomics.store(words, offset / 4, value)
    },
    pin: (cpu) => {
      allowed ??= affinity()
      if (cpu < 0) return result(libc.setaffinity(0, CPU_SET_BYTES, allowed))
      const set = new Uint8Array(CPU_SET_BYTES)
      set[cpu >> 3] = 1 << (cpu & 7)
      return result(libc.setaffinity(0, CPU_SET_BYTES, set))
    },
    cpus: () => {
      allowed ??= affinity()
      const set = allowed
      return Array.from({ length: 8 * CPU_SET_BYTES }, (_, cpu) => cpu).filter(
        (cpu) => (set[cpu >> 3]! & (1 << (cpu & 7))) !== 0
      )
    },
    threadId: () => libc.gettid(),
    spin: (ns) => {
      const end = now() + ns
      while (now() < end) {}
    },
    createThread: () => -libc.pthreadCreate(thread, null, idle, null),
    joinThread: () => -libc.pthreadJoin(threadView.getBigUint64(0, true), null),
    handleKick: () => {
      // A handler must be machine code that any thread may run at any moment: abs() is, a JavaScript function is not.
      const action = new Uint8Array(SIGACTION_BYTES)
      new DataView(action.buffer).setBigUint64(0, idle, true)
      return result(libc.sigaction(KICK_SIGNAL, action, null))
    },
    kick: (threadId) => result(libc.tgkill(SYS_TGKILL, process.pid, threadId, KICK_SIGNAL))
  }
}
