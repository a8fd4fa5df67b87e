import { GUEST, type Mode } from "../guest/Modes.ts"
import { CPUID_LOOP, PORT_WRITE_LOOP, REGISTER_LOOP, STORE_LOOP, UPDATE_LOOP } from "../guest/Programs.ts"
import type { Session } from "../Session.ts"
import { order } from "../Session.ts"
import type { Created } from "../tasks/Creation.ts"
import type { Synced } from "../tasks/KvmRun.ts"
import type { Samples } from "../tasks/Task.ts"
import type { Count, LiveCase } from "./Case.ts"

const CHEAP = 4_000
const COSTLY = 200
/** Of PORT_WRITE_LOOP, between two writes. */
const ONE_JUMP = { register: 1, access: 0, update: 0 }

const portWriter = { program: PORT_WRITE_LOOP, at: GUEST.CODE }

const portWrite =
  (mode: Mode, synced: Synced) =>
  (session: Session, count: Count): Promise<Samples> =>
    session.withGuest({ mode, vcpus: [portWriter] }, ({ shared }) =>
      session.solo(order("portWrite", count, { vcpu: shared[0]!, synced }))
    )

const registers = (name: "GET_REGS" | "SET_REGS" | "GET_SREGS" | "SET_SREGS"): LiveCase => ({
  id: `kvm-${name.toLowerCase().replace("_", "-")}`,
  what: `KVM_${name} of one vCPU`,
  samples: CHEAP,
  calls: 1,
  clocks: 1,
  run: (session, count) =>
    session.withGuest({ mode: "long", vcpus: [portWriter] }, ({ shared }) =>
      session.solo(order("registerIoctl", count, { vcpu: shared[0]!, name }))
    )
})

const create = (id: string, what: Created, text: string, calls: number, samples = COSTLY): LiveCase => ({
  id,
  what: text,
  samples,
  calls,
  clocks: 1,
  run: (session, count) => session.solo(order("create", count, { path: session.path, what }))
})

/** One turn of a loop in the guest. */
const loop = (id: string, what: string, program: Uint8Array): LiveCase => ({
  id,
  what,
  samples: 2_000,
  calls: 0,
  clocks: 0,
  needs: ["SYNC_REGS"],
  run: (session, count) => {
    const start = { rsi: 1, rdi: GUEST.CALLING_AREA }
    return session.withGuest({ mode: "long", vcpus: [{ program, at: GUEST.CODE, start }] }, ({ shared }) =>
      session.solo(order("loopSlope", count, { vcpu: shared[0]! }))
    )
  }
})

/** What one thread measures alone. */
export const SINGLE_THREAD: ReadonlyArray<LiveCase> = [
  {
    id: "clock",
    what: "reading the clock twice",
    samples: CHEAP,
    calls: 0,
    clocks: 0,
    run: (session, count) => session.solo(order("clock", count, undefined))
  },
  {
    id: "binding",
    what: "a call through the binding that does nothing",
    samples: CHEAP,
    calls: 0,
    clocks: 1,
    run: (session, count) => session.solo(order("binding", count, undefined))
  },
  {
    id: "null-ioctl",
    what: "KVM_GET_API_VERSION",
    samples: CHEAP,
    calls: 1,
    clocks: 1,
    run: (session, count) => session.solo(order("nullIoctl", count, { fd: session.system.fd }))
  },
  loop("guest-register", "two instructions on registers in the guest (slope of a loop)", REGISTER_LOOP),
  loop("guest-store", "the same and a store", STORE_LOOP),
  loop("guest-update", "the same and a load with a store", UPDATE_LOOP),
  {
    ...loop("kernel-exit", "CPUID, served inside the kernel (slope of a loop)", CPUID_LOOP),
    instructions: { register: 3, access: 0, update: 0 }
  },
  {
    id: "port-write-real",
    what: "KVM_RUN to a port write, real mode",
    samples: CHEAP,
    calls: 1,
    instructions: ONE_JUMP,
    clocks: 1,
    run: portWrite("real", "none")
  },
  {
    id: "port-write-long",
    what: "KVM_RUN to a port write, long mode",
    samples: CHEAP,
    calls: 1,
    instructions: ONE_JUMP,
    clocks: 1,
    run: portWrite("long", "none")
  },
  {
    id: "port-write-regs",
    what: "the same with registers synced both ways",
    samples: CHEAP,
    calls: 1,
    instructions: ONE_JUMP,
    clocks: 1,
    needs: ["SYNC_REGS"],
    run: portWrite("long", "regs")
  },
  {
    id: "port-write-sregs",
    what: "the same with registers and system registers synced",
    samples: CHEAP,
    calls: 1,
    instructions: ONE_JUMP,
    clocks: 1,
    needs: ["SYNC_REGS"],
    run: portWrite("long", "regs and sregs")
  },
  registers("GET_REGS"),
  registers("SET_REGS"),
  registers("GET_SREGS"),
  registers("SET_SREGS"),
  {
    id: "immediate-exit",
    what: "KVM_RUN with immediate_exit",
    samples: CHEAP,
    calls: 1,
    clocks: 1,
    needs: ["IMMEDIATE_EXIT"],
    run: (session, count) =>
      session.withGuest({ mode: "long", vcpus: [portWriter] }, ({ shared }) =>
        session.solo(order("immediateExit", count, { vcpu: shared[0]! }))
      )
  },
  {
    id: "two-vcpus-one-thread",
    what: "KVM_RUN of two vCPUs of one VM in turn, each",
    samples: CHEAP,
    calls: 1,
    instructions: ONE_JUMP,
    clocks: 1,
    run: (session, count) =>
      session.withGuest({ mode: "long", vcpus: [portWriter, portWriter] }, ({ shared }) =>
        session.solo(order("alternate", count, { vcpus: [shared[0]!, shared[1]!] }))
      )
  },
  {
    id: "two-vms-one-thread",
    what: "KVM_RUN of a vCPU each of two VMs in turn, each",
    samples: CHEAP,
    calls: 1,
    instructions: ONE_JUMP,
    clocks: 1,
    run: (session, count) =>
      session.withGuest({ mode: "long", vms: 2, vcpus: [portWriter, { ...portWriter, vm: 1 }] }, ({ shared }) =>
        session.solo(order("alternate", count, { vcpus: [shared[0]!, shared[1]!] }))
      )
  },
  create("create-vm", "vm", "KVM_CREATE_VM", 1),
  create("memory-slot", "memory slot", "KVM_SET_USER_MEMORY_REGION, first slot of a VM", 1),
  create("create-vcpu-first", "first vcpu", "KVM_CREATE_VCPU and mmap, first of a VM", 2),
  {
    id: "create-vcpu-next",
    what: "KVM_CREATE_VCPU and mmap, the next ones",
    samples: 2_000,
    calls: 2,
    clocks: 1,
    run: (session, count) => session.solo(order("createNextVcpu", count, { path: session.path }))
  },
  { ...create("create-irqchip", "irqchip", "KVM_CREATE_IRQCHIP", 1), needs: ["IRQCHIP"] },
  {
    id: "create-thread",
    what: "pthread_create",
    samples: 2_000,
    calls: 1,
    clocks: 1,
    run: (session, count) => session.solo(order("createThread", count, undefined))
  }
]
