import { parentPort, workerData } from "node:worker_threads"
import { Ledger } from "../Ledger.ts"
import { LiveFailed } from "../LiveFailed.ts"
import { linux } from "../os/Linux.ts"
import { type RecordedCall, recording } from "../os/Recording.ts"
import { STATE, type TaskOrder, type TaskReply, type WorkerStart } from "./Protocol.ts"
import { runTask } from "./RunTask.ts"

/** A thread that measures what it is told, one task at a time. */
const start: WorkerStart = workerData
const state = new Int32Array(start.state)
const ledger = new Ledger(start.ledger)
const os = linux()
Atomics.store(state, STATE.threadId, os.threadId())
const stopped = (): boolean => Atomics.load(state, STATE.stop) !== 0

const serve = (order: TaskOrder): TaskReply => {
  const calls: Array<RecordedCall> = []
  try {
    const samples = runTask(start.record ? recording(os, calls) : os, order, ledger, stopped)
    return { ok: true, samples, calls }
  } catch (error) {
    if (error instanceof LiveFailed) return { ok: false, live: true, why: error.why }
    return { ok: false, live: false, why: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
}

parentPort?.on("message", (order: TaskOrder) => {
  parentPort?.postMessage(serve(order))
})
