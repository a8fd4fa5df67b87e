import { Worker } from "node:worker_threads"
import * as Effect from "effect/Effect"
import { RunFailed } from "../RunFailed.ts"
import type { Job, JobAnswer } from "./Point.ts"

// A bundle's parts lie in one folder, with the worker's program in a folder below it.
/** The program of a worker. */
export const SWEEP_WORKER = new URL(
  import.meta.url.endsWith(".ts") ? "./SweepWorker.ts" : "./sweep/SweepWorker.js",
  import.meta.url
)

/** What a pool does. */
export interface PoolInput {
  readonly worker: URL
  readonly size: number
  /** The next job, or null when there are no more. */
  readonly next: () => Job | null
  /** Called with each answer that is no failure, one at a time. What it throws ends the pool. */
  readonly done: (answer: Extract<JobAnswer, { outcome: unknown }>) => void
  /** How an error calls a job. */
  readonly nameOf: (job: Job) => string
}

/**
 * Runs jobs on threads until none is left. Interrupting it ends the threads; what was answered before stays answered.
 *
 * @returns RunFailed when a job fails or a thread ends before its answer
 */
export const runPool = ({ worker, size, next, done, nameOf }: PoolInput): Effect.Effect<void, RunFailed> =>
  Effect.callback<void, RunFailed>((resume) => {
    const threads = new Set<Worker>()
    let over = false
    const finish = (outcome: Effect.Effect<void, RunFailed>): void => {
      if (over) return
      over = true
      void Promise.all([...threads].map((thread) => thread.terminate())).then(() => resume(outcome))
    }
    const failed = (why: string): void => finish(Effect.fail(new RunFailed({ why })))

    const start = (first: Job): void => {
      const thread = new Worker(worker)
      let job: Job | null = first
      const leave = (): void => {
        job = null
        threads.delete(thread)
        void thread.terminate()
        if (threads.size === 0) finish(Effect.void)
      }
      thread.on("message", (answer: JobAnswer) => {
        if (over || job === null) return
        if ("failure" in answer) return failed(`${nameOf(job)}: ${answer.failure}`)
        try {
          done(answer)
        } catch (error) {
          return failed(error instanceof Error ? error.message : String(error))
        }
        job = next()
        if (job === null) leave()
        else thread.postMessage(job)
      })
      thread.on("error", (error: unknown) => {
        const what = error instanceof Error ? error.message : String(error)
        failed(`a worker thread failed at ${job === null ? "its end" : nameOf(job)}: ${what}`)
      })
      thread.on("exit", (code) => {
        if (job !== null) failed(`a worker thread ended with code ${code} at ${nameOf(job)}`)
      })
      threads.add(thread)
      thread.postMessage(first)
    }

    for (let i = 0; i < size; i++) {
      const job = next()
      if (job === null) break
      start(job)
    }
    if (threads.size === 0) finish(Effect.void)
    return Effect.promise(async () => {
      over = true
      await Promise.all([...threads].map((thread) => thread.terminate()))
    })
  })
