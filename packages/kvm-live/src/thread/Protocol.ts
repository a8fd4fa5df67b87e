import type { RecordedCall } from "../os/Recording.ts"
import type { TaskName } from "../tasks/index.ts"
import type { Samples, SharedMapping } from "../tasks/Task.ts"

/** What a worker is started with. */
export interface WorkerStart {
  readonly ledger: SharedArrayBuffer
  /** Word 0: stop; word 1: the thread's id, for a kick. */
  readonly state: SharedArrayBuffer
  readonly record: boolean
}

export const STATE = { stop: 0, threadId: 1, WORDS: 2 } as const

/** A task as it goes to a worker. */
export interface TaskOrder {
  readonly name: TaskName
  readonly samples: number
  readonly warmUp: number
  readonly parameters: unknown
}

/** What comes back. */
export type TaskReply =
  | { readonly ok: true; readonly samples: Samples; readonly calls: ReadonlyArray<RecordedCall> }
  | { readonly ok: false; readonly live: boolean; readonly why: string }

export type { SharedMapping }
