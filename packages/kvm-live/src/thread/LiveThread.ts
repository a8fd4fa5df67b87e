import { Worker } from "node:worker_threads"
import { Ledger } from "../Ledger.ts"
import { LiveFailed } from "../LiveFailed.ts"
import type { Os } from "../os/Os.ts"
import type { RecordedCall } from "../os/Recording.ts"
import type { Samples } from "../tasks/Task.ts"
import { STATE, type TaskOrder, type TaskReply, type WorkerStart } from "./Protocol.ts"

/** A task's samples, and its calls when they are recorded. */
export interface TaskOutcome {
  readonly samples: Samples
  readonly calls: ReadonlyArray<RecordedCall>
}

/** A thread on which tasks run, so that this one stays free for signals and progress. */
export interface TaskThread {
  readonly run: (order: TaskOrder) => Promise<TaskOutcome>
  /** Ends it: what it runs is given up, what it holds is released. */
  readonly close: () => Promise<void>
}

const KICK_EVERY_MS = 20
const GIVE_UP_MS = 2_000

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, KICK_EVERY_MS))

const workerFile = new URL(
  import.meta.url.endsWith(".ts") ? "./VcpuWorker.ts" : "./thread/VcpuWorker.js",
  import.meta.url
)

/** A thread of its own. */
export const liveThread = (os: Os, record: boolean): TaskThread => {
  const ledger = new Ledger()
  const state = new Int32Array(new SharedArrayBuffer(4 * STATE.WORDS))
  const workerData: WorkerStart = { ledger: ledger.memory, state: state.buffer, record }
  const worker = new Worker(workerFile, { workerData, execArgv: process.execArgv })
  let pending: { resolve: (outcome: TaskOutcome) => void; reject: (error: unknown) => void } | null = null
  let ended = false
  let whenEnded: () => void = () => {}
  const fail = (error: unknown): void => {
    pending?.reject(error)
    pending = null
  }
  worker.on("message", (reply: TaskReply) => {
    const waiting = pending
    pending = null
    if (reply.ok) waiting?.resolve(reply)
    else waiting?.reject(reply.live ? new LiveFailed({ why: reply.why }) : new Error(reply.why))
  })
  worker.on("error", (error) => fail(new LiveFailed({ why: `a measuring thread died: ${String(error)}` })))
  worker.on("exit", (code) => {
    ended = true
    ledger.releaseAll(os)
    fail(new LiveFailed({ why: `a measuring thread ended with code ${code}` }))
    whenEnded()
  })
  return {
    run: (order) =>
      new Promise((resolve, reject) => {
        if (ended) return reject(new LiveFailed({ why: "a measuring thread has ended" }))
        pending = { resolve, reject }
        worker.postMessage(order)
      }),
    close: async () => {
      if (ended) return
      Atomics.store(state, STATE.stop, 1)
      // A thread that is ended while it loads a native library takes the whole process with it.
      while (!ended && Atomics.load(state, STATE.threadId) === 0) await pause()
      const busy = (): boolean => pending !== null && !ended
      const begin = performance.now()
      while (busy() && performance.now() - begin < GIVE_UP_MS) {
        // A kick that comes just before KVM_RUN is lost, so it is repeated until the thread has seen it.
        os.kick(Atomics.load(state, STATE.threadId))
        await pause()
      }
      const exit = new Promise<void>((resolve) => {
        whenEnded = resolve
      })
      await worker.terminate()
      if (!ended) await exit
    }
  }
}
