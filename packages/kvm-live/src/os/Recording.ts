import type { Mapping, Os } from "./Os.ts"

/**
 * One call of a recorded session: which, its result, and what it left in memory (base64). Requests of an ioctl are part
 * of the name, so that a session that no longer fits the code is noticed at its first difference.
 */
export type RecordedCall = readonly [call: string, result: number, memory?: string]

/** Calls by stream: one for each thread and task, in the order of that thread. */
export type RecordedSession = { readonly [stream: string]: ReadonlyArray<RecordedCall> }

/** The head of kvm_run that programs here look at. */
const RUN_HEAD_BYTES = 48
/** struct kvm_sregs, the longest whose end matters. */
const FILLED_BYTES = 312
/** _IOR and _IOWR: the kernel fills the argument. */
const READS = 0x8000_0000

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64")

/** Name of an ioctl in a recording. */
const ioctlCall = (request: number): string => `ioctl ${request.toString(16)}`

/** The same system, with every call noted in `calls`. */
export const recording = (os: Os, calls: Array<RecordedCall>): Os => {
  const heads = new Map<number, string>()
  const note = (call: string, result: number, memory?: string): number => {
    calls.push(memory === undefined ? [call, result] : [call, result, memory])
    return result
  }
  return {
    kind: "linux",
    now: () => note("now", os.now()),
    open: (path) => note("open", os.open(path)),
    close: (fd) => note("close", os.close(fd)),
    nothing: (fd, request, argument) => note("nothing", os.nothing(fd, request, argument)),
    ioctl: (fd, request, argument) => note(ioctlCall(request), os.ioctl(fd, request, argument)),
    ioctlBuffer: (fd, request, argument) => {
      const result = os.ioctlBuffer(fd, request, argument)
      // Nothing here depends on the end of a long table.
      const filled = request >= READS && result >= 0 ? base64(argument.subarray(0, FILLED_BYTES)) : undefined
      return note(ioctlCall(request), result, filled)
    },
    kvmRun: (fd, run) => {
      const result = os.kvmRun(fd, run)
      const head = base64(run.octets.subarray(0, RUN_HEAD_BYTES))
      if (heads.get(fd) === head) return note("KVM_RUN", result)
      heads.set(fd, head)
      return note("KVM_RUN", result, head)
    },
    mmap: (fd, bytes) => {
      const mapped = os.mmap(fd, bytes)
      note("mmap", typeof mapped === "number" ? mapped : 0)
      return mapped
    },
    remap: os.remap,
    munmap: (mapping) => note("munmap", os.munmap(mapping)),
    eventfd: () => note("eventfd", os.eventfd()),
    eventfdRead: (fd) => note("eventfdRead", os.eventfdRead(fd)),
    eventfdWrite: (fd) => note("eventfdWrite", os.eventfdWrite(fd)),
    waitWhile: (word, value) => note("waitWhile", os.waitWhile(word, value)),
    storeAndWake: os.storeAndWake,
    atomicsWaitWhile: (words, index, value) => note("atomicsWaitWhile", os.atomicsWaitWhile(words, index, value)),
    atomicsStoreAndNotify: os.atomicsStoreAndNotify,
    load32: (mapping, offset) => note("load32", os.load32(mapping, offset)),
    store32: os.store32,
    pin: (cpu) => note("pin", os.pin(cpu)),
    cpus: () => {
      const cpus = os.cpus()
      note("cpus", cpus.length, base64(Uint8Array.from(cpus)))
      return cpus
    },
    threadId: () => note("threadId", os.threadId()),
    spin: os.spin,
    createThread: () => note("createThread", os.createThread()),
    joinThread: () => note("joinThread", os.joinThread()),
    handleKick: () => note("handleKick", os.handleKick()),
    kick: (threadId) => note("kick", os.kick(threadId))
  }
}

/** Memory of a recorded session: what nobody filled is zero. */
const imaginary = (address: bigint, bytes: number): Mapping => {
  const buffer = new ArrayBuffer(bytes)
  return { address, bytes, view: new DataView(buffer), words: new Int32Array(buffer), octets: new Uint8Array(buffer) }
}

/**
 * A system that answers as a recorded one did: the same code runs on it, without KVM and without threads.
 * @throws Error at the first call that the recording does not have there
 */
export const replaying = (stream: string, calls: ReadonlyArray<RecordedCall>): Os => {
  let at = 0
  let address = 0n
  const take = (call: string): RecordedCall => {
    const recorded = calls[at]
    if (recorded?.[0] !== call) {
      const was = recorded === undefined ? "is at its end" : `has ${recorded[0]}`
      throw new Error(`recording out of step: ${stream}, call ${at}: the code asks for ${call}, the recording ${was}`)
    }
    at++
    return recorded
  }
  const result = (call: string): number => take(call)[1]
  const into = (memory: string | undefined, bytes: Uint8Array): void => {
    if (memory !== undefined) bytes.set(Buffer.from(memory, "base64").subarray(0, bytes.length))
  }
  return {
    kind: "recording",
    now: () => result("now"),
    open: () => result("open"),
    close: () => result("close"),
    nothing: () => result("nothing"),
    ioctl: (_fd, request) => result(ioctlCall(request)),
    ioctlBuffer: (_fd, request, argument) => {
      const [, answer, memory] = take(ioctlCall(request))
      into(memory, argument)
      return answer
    },
    kvmRun: (_fd, run) => {
      const [, answer, memory] = take("KVM_RUN")
      into(memory, run.octets)
      return answer
    },
    mmap: (_fd, bytes) => {
      const answer = result("mmap")
      if (answer < 0) return answer
      address += 0x1000_0000n
      return imaginary(address, bytes)
    },
    remap: imaginary,
    munmap: () => result("munmap"),
    eventfd: () => result("eventfd"),
    eventfdRead: () => result("eventfdRead"),
    eventfdWrite: () => result("eventfdWrite"),
    waitWhile: () => result("waitWhile"),
    storeAndWake: () => {},
    atomicsWaitWhile: () => result("atomicsWaitWhile"),
    atomicsStoreAndNotify: () => {},
    load32: () => result("load32"),
    store32: () => {},
    pin: () => result("pin"),
    cpus: () => {
      const [, length, memory] = take("cpus")
      const cpus = new Uint8Array(length)
      into(memory, cpus)
      return [...cpus]
    },
    threadId: () => result("threadId"),
    spin: () => {},
    createThread: () => result("createThread"),
    joinThread: () => result("joinThread"),
    handleKick: () => result("handleKick"),
    kick: () => result("kick")
  }
}
