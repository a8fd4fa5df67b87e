import { LiveFailed, must } from "../LiveFailed.ts"
import { futexWord } from "../os/Os.ts"
import { attach } from "./KvmRun.ts"
import {
  awaitChange,
  CONTROL,
  collect,
  meet,
  type Samples,
  type SharedMapping,
  type SharedVcpu,
  type TaskContext
} from "./Task.ts"

/** Whose turn it is. */
const TURN = { LEADER: 0, FOLLOWER: 1 } as const

/** What both threads of a pair are given. */
export interface PairParameters {
  readonly control: SharedMapping
  /** CPU to which this thread is pinned, or -1. */
  readonly cpu: number
  readonly leader: boolean
}

/** How a thread tells another that it is its turn. */
interface TurnTaking {
  /** Hands over and waits until it is this thread's turn again. */
  readonly handOverAndWait: () => void
  /** The other's part: waits for its turn, does `work`, hands back. */
  readonly answer: (work: () => void) => void
}

const byFutex = (context: TaskContext, { control, leader }: PairParameters): TurnTaking => {
  const { os } = context
  const word = futexWord(os.remap(control.address, control.bytes), CONTROL.turn)
  const mine = leader ? TURN.LEADER : TURN.FOLLOWER
  const other = 1 - mine
  return {
    handOverAndWait: () => {
      os.storeAndWake(word, other)
      awaitChange(context, word, other)
    },
    answer: (work) => {
      awaitChange(context, word, other)
      work()
      os.storeAndWake(word, other)
    }
  }
}

const begin = (context: TaskContext, { control, cpu, leader }: PairParameters): void => {
  const { os } = context
  must("sched_setaffinity", os.pin(cpu))
  meet(context, os.remap(control.address, control.bytes), leader)
}

/** Runs a pair's loop; the leader measures, the follower answers as often as the leader asks. */
const takeTurns = (context: TaskContext, leader: boolean, turns: TurnTaking, work: () => void): Samples => {
  const { os, samples, warmUp } = context
  if (leader) {
    return collect(context, () => {
      const start = os.now()
      work()
      turns.handOverAndWait()
      return os.now() - start
    })
  }
  for (let i = 0; i < samples + warmUp; i++) turns.answer(work)
  return new Float64Array(0)
}

/** Two threads that hand over by a futex: a sample is there and back. */
export const futexTurns = (context: TaskContext, parameters: PairParameters): Samples => {
  begin(context, parameters)
  return takeTurns(context, parameters.leader, byFutex(context, parameters), () => {})
}

/** Two threads, each with a vCPU: the leader's runs to its port write, then the follower's. A sample is both. */
export const vcpuTurns = (
  context: TaskContext,
  parameters: PairParameters & { readonly vcpu: SharedVcpu }
): Samples => {
  const vcpu = attach(context.os, parameters.vcpu)
  begin(context, parameters)
  return takeTurns(context, parameters.leader, byFutex(context, parameters), () => vcpu.runToPortWrite())
}

/** The same without vCPUs by a pair of eventfds. */
export const eventfdTurns = (
  context: TaskContext,
  parameters: PairParameters & { readonly eventfds: readonly [number, number] }
): Samples => {
  const { os, stopped } = context
  const [toFollower, toLeader] = parameters.eventfds
  const wait = (fd: number): void => {
    while (os.eventfdRead(fd) < 0) if (stopped()) throw new LiveFailed({ why: "the measurement was given up" })
  }
  begin(context, parameters)
  return takeTurns(
    context,
    parameters.leader,
    {
      handOverAndWait: () => {
        must("write of an eventfd", os.eventfdWrite(toFollower))
        wait(toLeader)
      },
      answer: (work) => {
        wait(toFollower)
        work()
        must("write of an eventfd", os.eventfdWrite(toLeader))
      }
    },
    () => {}
  )
}

/** The same by Atomics.wait and Atomics.notify: what two JavaScript threads have without a system call of their own. */
export const atomicsTurns = (
  context: TaskContext,
  parameters: PairParameters & { readonly words: SharedArrayBuffer }
): Samples => {
  const { os, stopped } = context
  const words = new Int32Array(parameters.words)
  const mine = parameters.leader ? TURN.LEADER : TURN.FOLLOWER
  const other = 1 - mine
  const wait = (): void => {
    while (os.atomicsWaitWhile(words, 0, other) === other) {
      if (stopped()) throw new LiveFailed({ why: "the measurement was given up" })
    }
  }
  begin(context, parameters)
  return takeTurns(
    context,
    parameters.leader,
    {
      handOverAndWait: () => {
        os.atomicsStoreAndNotify(words, 0, other)
        wait()
      },
      answer: (work) => {
        wait()
        work()
        os.atomicsStoreAndNotify(words, 0, other)
      }
    },
    () => {}
  )
}
