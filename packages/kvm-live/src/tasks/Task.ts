import type { Ledger } from "../Ledger.ts"
import { LiveFailed } from "../LiveFailed.ts"
import { type FutexWord, futexWord, type Mapping, type Os } from "../os/Os.ts"

/** What a task is given besides its parameters: where it runs, and how much it is to measure. */
export interface TaskContext {
  readonly os: Os
  readonly ledger: Ledger | null
  readonly samples: number
  readonly warmUp: number
  /** True once the measurement was given up: by a signal, or because another thread failed. */
  readonly stopped: () => boolean
}

/** Nanoseconds, one element a sample, in the order in which they were taken. */
export type Samples = Float64Array

/** A piece of memory that another thread has mapped, by its place in the process. */
export interface SharedMapping {
  readonly address: bigint
  readonly bytes: number
}

/** A vCPU that another thread has created. */
export interface SharedVcpu {
  readonly fd: number
  readonly run: SharedMapping
}

export const shareMapping = ({ address, bytes }: Mapping): SharedMapping => ({ address, bytes })

/** Byte offsets in the control page of a pair of threads, a cache line each. */
export const CONTROL = { turn: 0, ready: 64, threadId: 128, BYTES: 4_096 } as const

/** Samples between two looks whether to stop. */
const STOP_EVERY = 32

/**
 * Takes the warm-up and then the samples.
 * @throws LiveFailed when the measurement was given up
 */
export const collect = (context: TaskContext, once: () => number): Samples => {
  const { samples, warmUp, stopped } = context
  const taken = new Float64Array(samples)
  for (let i = -warmUp; i < samples; i++) {
    if (i % STOP_EVERY === 0 && stopped()) throw new LiveFailed({ why: "the measurement was given up" })
    const ns = once()
    if (i >= 0) taken[i] = ns
  }
  return taken
}

/**
 * Sleeps until another thread has changed a word that holds `value`.
 * @throws LiveFailed when the measurement was given up
 */
export const awaitChange = ({ os, stopped }: TaskContext, word: FutexWord, value: number): number => {
  for (;;) {
    const found = os.waitWhile(word, value)
    if (found !== value) return found
    if (stopped()) throw new LiveFailed({ why: "the measurement was given up" })
  }
}

/** Two threads that begin together: each says that it is there and waits for the other. */
export const meet = (context: TaskContext, control: Mapping, first: boolean): void => {
  const word = futexWord(control, CONTROL.ready)
  if (first) {
    awaitChange(context, word, 0)
    context.os.storeAndWake(word, 2)
  } else {
    context.os.storeAndWake(word, 1)
    awaitChange(context, word, 1)
  }
}
