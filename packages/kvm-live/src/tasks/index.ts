import { createLevels } from "./ApCreate.ts"
import { create, createNextVcpu, createThread } from "./Creation.ts"
import { alternate, immediateExit, loopSlope, portWrite, registerIoctl } from "./KvmRun.ts"
import { oneThreadTrips, swappedTrips } from "./RoundTrips.ts"
import { binding, clock, nullIoctl } from "./SystemCalls.ts"
import { atomicsTurns, eventfdTurns, futexTurns, vcpuTurns } from "./Turns.ts"
import { halted, kicked, kicker, msiSender } from "./Wakes.ts"

/** Everything a thread can be asked to measure. */
export const TASKS = {
  clock,
  binding,
  nullIoctl,
  portWrite,
  immediateExit,
  loopSlope,
  alternate,
  registerIoctl,
  futexTurns,
  vcpuTurns,
  eventfdTurns,
  atomicsTurns,
  kicked,
  kicker,
  halted,
  msiSender,
  create,
  createNextVcpu,
  createThread,
  createLevels,
  oneThreadTrips,
  swappedTrips
} as const

export type TaskName = keyof typeof TASKS
/** What a task is asked, besides its context. */
export type TaskParameters<K extends TaskName> =
  Parameters<(typeof TASKS)[K]> extends [unknown, infer P] ? P : undefined
