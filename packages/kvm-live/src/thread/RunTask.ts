import type { Ledger } from "../Ledger.ts"
import type { Os } from "../os/Os.ts"
import { TASKS } from "../tasks/index.ts"
import type { Samples, TaskContext } from "../tasks/Task.ts"
import type { TaskOrder } from "./Protocol.ts"

/** Runs one task on the calling thread. */
export const runTask = (os: Os, order: TaskOrder, ledger: Ledger | null, stopped: () => boolean): Samples => {
  const context: TaskContext = { os, ledger, samples: order.samples, warmUp: order.warmUp, stopped }
  const task = TASKS[order.name] as (context: TaskContext, parameters: unknown) => Samples
  return task(context, order.parameters)
}
