import type { Guest } from "../guest/Guest.ts"
import { GUEST, registers } from "../guest/Modes.ts"
import { ANSWER_LOOP, ASK_LOOP, CALLING_AREA, IN_KERNEL_LOOP } from "../guest/Programs.ts"
import { LiveFailed } from "../LiveFailed.ts"
import type { Count, LiveCase } from "../measure/Case.ts"
import { type PairPlacement, pairCpus } from "../measure/TwoThreads.ts"
import { order, type Session } from "../Session.ts"
import type { Samples } from "../tasks/Task.ts"

/** Which of the strategies a live case stands for. */
export interface Choreography extends LiveCase {
  readonly strategy: "multi-vmpl-vcpu" | "vcpu-per-vmpl" | "vm-per-vmpl"
  readonly variant: "vmm-threads" | "vmm-one-thread" | null
  /** Where threads run, or which bound it is of a strategy that needs SEV-SNP to be run itself. */
  readonly placement: PairPlacement | "one thread" | "lower bound" | "upper bound"
}

const SAMPLES = 4_000
/** Of ASK_LOOP and ANSWER_LOOP together, in one round trip. */
const OF_BOTH = { register: 7, access: 3, update: 3 }
const asks = { program: ASK_LOOP, at: GUEST.CODE, start: { rbx: GUEST.CALLING_AREA } }
const answers = { program: ANSWER_LOOP, at: GUEST.OTHER_CODE, start: { rbx: GUEST.CALLING_AREA } }

/** Every call that level 2 made must have been served by level 0: the guests count themselves. */
const checkServed = (session: Session, { memory }: Guest, trips: number): void => {
  const counter = (offset: number): number => session.load32(memory, GUEST.CALLING_AREA + offset)
  const [asked, answered] = [counter(CALLING_AREA.asked), counter(CALLING_AREA.answered)]
  // Level 2 counts a call only when it runs again, which the last one may not have done.
  if (answered < trips || asked < trips - 1) {
    throw new LiveFailed({
      why: `${trips} round trips, but ${asked} calls counted at level 2 and ${answered} at level 0`
    })
  }
}

const trips = ({ samples, warmUp }: Count): number => samples + warmUp

const threads = (strategy: "vcpu-per-vmpl" | "vm-per-vmpl", placement: PairPlacement): Choreography => ({
  id: `${strategy} vmm-threads ${placement}`,
  strategy,
  variant: "vmm-threads",
  placement,
  what: "round trip",
  samples: SAMPLES,
  calls: placement === "one core" ? 6 : 4,
  instructions: OF_BOTH,
  clocks: 1,
  cpus: placement === "two cores" ? 2 : 1,
  run: (session, count) => {
    const vms = strategy === "vcpu-per-vmpl" ? 1 : 2
    const [a, b] = pairCpus(placement, session.cpus)
    return session.withGuest({ mode: "long", vms, vcpus: [asks, { ...answers, vm: vms - 1 }] }, (guest) =>
      session.withControl(async (control) => {
        const [samples] = await session.pair(
          order("vcpuTurns", count, { control, cpu: a, leader: true, vcpu: guest.shared[0]! }),
          order("vcpuTurns", count, { control, cpu: b, leader: false, vcpu: guest.shared[1]! })
        )
        checkServed(session, guest, trips(count))
        return samples
      })
    )
  }
})

const oneThread = (strategy: "vcpu-per-vmpl" | "vm-per-vmpl"): Choreography => ({
  id: `${strategy} vmm-one-thread`,
  strategy,
  variant: "vmm-one-thread",
  placement: "one thread",
  what: "round trip",
  samples: SAMPLES,
  calls: 2,
  instructions: OF_BOTH,
  clocks: 1,
  run: (session, count) => {
    const vms = strategy === "vcpu-per-vmpl" ? 1 : 2
    return session.withGuest({ mode: "long", vms, vcpus: [asks, { ...answers, vm: vms - 1 }] }, async (guest) => {
      const vcpus = [guest.shared[0]!, guest.shared[1]!] as const
      const samples = await session.solo(order("oneThreadTrips", count, { vcpus }))
      checkServed(session, guest, trips(count))
      return samples
    })
  }
})

const lower: Choreography = {
  id: "multi-vmpl-vcpu lower bound",
  strategy: "multi-vmpl-vcpu",
  variant: null,
  placement: "lower bound",
  what: "round trip, one exit inside the kernel per switch (slope)",
  samples: 2_000,
  calls: 0,
  instructions: { register: 4, access: 2, update: 2 },
  clocks: 0,
  needs: ["SYNC_REGS"],
  run: (session, count) => {
    const vcpu = { program: IN_KERNEL_LOOP, at: GUEST.CODE, start: { rdi: GUEST.CALLING_AREA, rsi: 1 } }
    return session.withGuest({ mode: "long", vcpus: [vcpu] }, async (guest) => {
      const samples: Samples = await session.solo(order("loopSlope", count, { vcpu: guest.shared[0]! }))
      checkServed(session, guest, trips(count))
      return samples
    })
  }
}

const upper: Choreography = {
  id: "multi-vmpl-vcpu upper bound",
  strategy: "multi-vmpl-vcpu",
  variant: null,
  placement: "upper bound",
  what: "round trip, user space swaps the registers of one vCPU",
  samples: SAMPLES,
  calls: 2,
  instructions: OF_BOTH,
  clocks: 1,
  needs: ["SYNC_REGS"],
  run: (session, count) =>
    session.withGuest({ mode: "long", vcpus: [asks] }, async (guest) => {
      guest.memory.octets.set(answers.program, answers.at)
      const other = registers({ rip: answers.at, ...answers.start })
      const samples = await session.solo(order("swappedTrips", count, { vcpu: guest.shared[0]!, other }))
      checkServed(session, guest, trips(count))
      return samples
    })
}

const PLACEMENTS: ReadonlyArray<PairPlacement> = ["one core", "two cores", "unpinned"]

/** Run VMPL there and back under each strategy that this machine can act out, in the order of tables. */
export const CHOREOGRAPHIES: ReadonlyArray<Choreography> = [
  lower,
  upper,
  ...(["vcpu-per-vmpl", "vm-per-vmpl"] as const).flatMap((strategy) => [
    ...PLACEMENTS.map((placement) => threads(strategy, placement)),
    oneThread(strategy)
  ])
]
