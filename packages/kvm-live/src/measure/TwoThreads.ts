import { GUEST } from "../guest/Modes.ts"
import { HALT_LOOP, PORT_WRITE_LOOP, SPIN } from "../guest/Programs.ts"
import { order, type Session } from "../Session.ts"
import type { Samples } from "../tasks/Task.ts"
import type { Count, LiveCase } from "./Case.ts"

const SAMPLES = 2_000

/** Where the two threads of a pair run. */
export type PairPlacement = "one core" | "two cores" | "unpinned"

/** The CPUs of a placement out of those that are allowed. */
export const pairCpus = (placement: PairPlacement, cpus: ReadonlyArray<number>): readonly [number, number] => {
  const [first = 0, second = first] = cpus
  if (placement === "unpinned") return [-1, -1]
  return placement === "one core" ? [first, first] : [first, second]
}

const portWriter = { program: PORT_WRITE_LOOP, at: GUEST.CODE }

const idOf = (placement: PairPlacement): string => placement.replace(" ", "-")

const handOff = (
  kind: "futex" | "eventfd" | "atomics",
  placement: PairPlacement,
  what: string,
  calls: number
): LiveCase => ({
  id: `${kind}-${idOf(placement)}`,
  what: `${what}, there and back, ${placement}`,
  samples: SAMPLES,
  calls,
  clocks: 1,
  cpus: placement === "two cores" ? 2 : 1,
  run: (session, count) =>
    session.withControl(async (control, eventfds) => {
      const [a, b] = pairCpus(placement, session.cpus)
      const words = new SharedArrayBuffer(4)
      const parameters = (leader: boolean) => ({ control, cpu: leader ? a : b, leader })
      const orderOf = (leader: boolean) => {
        switch (kind) {
          case "futex":
            return order("futexTurns", count, parameters(leader))
          case "eventfd":
            return order("eventfdTurns", count, { ...parameters(leader), eventfds })
          case "atomics":
            return order("atomicsTurns", count, { ...parameters(leader), words })
        }
      }
      return (await session.pair(orderOf(true), orderOf(false)))[0]
    })
})

const vcpus = (vms: 1 | 2, placement: PairPlacement): LiveCase => ({
  id: `two-${vms === 1 ? "vcpus" : "vms"}-${idOf(placement)}`,
  what: `a thread each for ${vms === 1 ? "two vCPUs of one VM" : "a vCPU each of two VMs"}, both in turn, ${placement}`,
  samples: SAMPLES,
  calls: placement === "one core" ? 6 : 4,
  instructions: { register: 2, access: 0, update: 0 },
  clocks: 1,
  cpus: placement === "two cores" ? 2 : 1,
  run: (session, count) => {
    const [a, b] = pairCpus(placement, session.cpus)
    return session.withGuest({ mode: "long", vms, vcpus: [portWriter, { ...portWriter, vm: vms - 1 }] }, (guest) =>
      session.withControl(async (control) => {
        const [samples] = await session.pair(
          order("vcpuTurns", count, { control, cpu: a, leader: true, vcpu: guest.shared[0]! }),
          order("vcpuTurns", count, { control, cpu: b, leader: false, vcpu: guest.shared[1]! })
        )
        return samples
      })
    )
  }
})

/** Time between two notes on two threads, sample by sample. */
const between = (from: Samples, to: Samples): Samples => to.map((at, i) => at - from[i]!)

/** How long a vCPU spins in the guest before it is kicked: it is surely inside by then. */
const KICK_DELAY_NS = 50_000
/** Within the polling that KVM grows to for such waits, and far beyond any polling. */
const HALT_DELAY_NS = { polling: 40_000, sleeping: 400_000 }
/** KVM's own ceiling for polling. */
const HALT_POLL_NS = 200_000

const halt = (name: "polling" | "sleeping"): LiveCase => ({
  id: `halt-${name}`,
  // iret and cli.
  instructions: { register: 2, access: 0, update: 0 },
  what: `an interrupt to a vCPU in HLT until it is back in user space, ${name === "polling" ? "while KVM polls" : "no polling"}`,
  samples: SAMPLES,
  calls: 1,
  clocks: 1,
  cpus: 2,
  needs: ["IRQCHIP", "SIGNAL_MSI", "HALT_POLL"],
  run: (session: Session, count: Count) => {
    const [a, b] = pairCpus("two cores", session.cpus)
    const haltPollNs = name === "polling" ? HALT_POLL_NS : 0
    const plan = { mode: "real", irqchip: true, haltPollNs, vcpus: [{ program: HALT_LOOP, at: GUEST.CODE }] } as const
    return session.withGuest(plan, (guest) =>
      session.withControl(async (control) => {
        const delayNs = HALT_DELAY_NS[name]
        const [sent, woken] = await session.pair(
          order("msiSender", count, { control, cpu: a, vm: guest.vms[0]!.fd, delayNs }),
          order("halted", count, { control, cpu: b, vcpu: guest.shared[0]! })
        )
        return between(sent, woken)
      })
    )
  }
})

/** What takes two threads. */
export const TWO_THREADS: ReadonlyArray<LiveCase> = [
  handOff("futex", "one core", "a futex hand-off", 4),
  handOff("futex", "two cores", "a futex hand-off", 2),
  handOff("eventfd", "one core", "an eventfd hand-off", 4),
  handOff("eventfd", "two cores", "an eventfd hand-off", 2),
  handOff("atomics", "one core", "an Atomics.wait hand-off", 0),
  handOff("atomics", "two cores", "an Atomics.wait hand-off", 0),
  vcpus(1, "one core"),
  vcpus(1, "two cores"),
  vcpus(2, "one core"),
  vcpus(2, "two cores"),
  {
    id: "kick-signal",
    what: "a signal to a vCPU in the guest until it is back in user space",
    samples: SAMPLES,
    calls: 1,
    clocks: 1,
    cpus: 2,
    run: (session, count) => {
      const [a, b] = pairCpus("two cores", session.cpus)
      return session.withGuest({ mode: "long", vcpus: [{ program: SPIN, at: GUEST.CODE }] }, (guest) =>
        session.withControl(async (control) => {
          const [sent, back] = await session.pair(
            order("kicker", count, { control, cpu: a, vcpu: guest.shared[0]!, delayNs: KICK_DELAY_NS }),
            order("kicked", count, { control, cpu: b, vcpu: guest.shared[0]! })
          )
          return between(sent, back)
        })
      )
    }
  },
  halt("polling"),
  halt("sleeping")
]
