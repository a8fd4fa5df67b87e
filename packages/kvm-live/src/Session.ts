import { type Guest, type GuestPlan, makeGuest } from "./guest/Guest.ts"
import { KvmSystem } from "./kvm/KvmSystem.ts"
import { LiveFailed, must } from "./LiveFailed.ts"
import { errnoText } from "./os/Errno.ts"
import { linux } from "./os/Linux.ts"
import type { Mapping, Os } from "./os/Os.ts"
import { type RecordedCall, type RecordedSession, recording, replaying } from "./os/Recording.ts"
import { Resources } from "./Resources.ts"
import type { TaskName, TaskParameters } from "./tasks/index.ts"
import { CONTROL, type Samples, type SharedMapping, shareMapping } from "./tasks/Task.ts"
import { liveThread, type TaskThread } from "./thread/LiveThread.ts"
import { runTask } from "./thread/RunTask.ts"

/** A task for one thread. */
export interface Order<K extends TaskName = TaskName> {
  readonly name: K
  readonly samples: number
  readonly warmUp: number
  readonly parameters: TaskParameters<K>
}

/** An order, with its parameters checked against its task. */
export const order = <K extends TaskName>(
  name: K,
  count: { readonly samples: number; readonly warmUp: number },
  parameters: TaskParameters<K>
): Order => ({ name, ...count, parameters }) as Order

const MAIN = "main"

/**
 * /dev/kvm opened, and two threads to measure with: on this machine, or as a recorded session had it. Whoever opens one
 * closes it.
 */
export class Session {
  readonly path: string
  readonly system: KvmSystem
  /** CPUs that this process may use. */
  readonly cpus: ReadonlyArray<number>
  readonly #os: Os
  readonly #inline: ((stream: string) => Os) | null
  readonly #recorded: { [stream: string]: Array<RecordedCall> } | null
  readonly #resources: Resources
  #threads: [TaskThread, TaskThread] | null = null
  #streams = 0
  #closed = false
  #ending: Promise<unknown> = Promise.resolve()

  private constructor(path: string, inline: ((stream: string) => Os) | null, record: boolean) {
    this.path = path
    this.#inline = inline
    this.#recorded = record ? { [MAIN]: [] } : null
    const os = inline === null ? linux() : inline(MAIN)
    this.#os = this.#recorded === null ? os : recording(os, this.#recorded[MAIN]!)
    this.#resources = new Resources(this.#os)
    try {
      must("sigaction", this.#os.handleKick())
      this.cpus = this.#os.cpus()
      this.system = new KvmSystem(this.#os, this.#resources, path)
    } catch (error) {
      this.#resources.release()
      throw error
    }
  }

  /**
   * This machine's KVM.
   * @throws LiveFailed when it cannot be opened
   */
  static open(path: string, options: { readonly record?: boolean } = {}): Session {
    return new Session(path, null, options.record === true)
  }

  /** A recorded session: no KVM, no threads; the tasks of a pair run one after the other. */
  static replay(path: string, session: RecordedSession): Session {
    return Session.inline(path, (stream) => replaying(stream, session[stream] ?? []))
  }

  /** The same on any system, one for each stream of calls: the main thread's, and one a task. */
  static inline(path: string, osOf: (stream: string) => Os): Session {
    return new Session(path, osOf, false)
  }

  /** True on this machine with threads, false in a recorded session. */
  get isLive(): boolean {
    return this.#inline === null
  }

  /** What was recorded so far; null unless asked for. */
  get recorded(): RecordedSession | null {
    return this.#recorded
  }

  /** Runs `use` with a guest of its own, released after. */
  async withGuest<A>(plan: GuestPlan, use: (guest: Guest) => Promise<A>): Promise<A> {
    const resources = new Resources(this.#os)
    try {
      return await use(makeGuest(this.system, resources, plan))
    } finally {
      resources.release()
    }
  }

  /** The same with a control page for a pair of threads, and a pair of eventfds. */
  async withControl<A>(use: (control: SharedMapping, eventfds: readonly [number, number]) => Promise<A>): Promise<A> {
    const resources = new Resources(this.#os)
    try {
      const page = this.#os.mmap(-1, CONTROL.BYTES)
      if (typeof page === "number") throw new LiveFailed({ why: `mmap of a page fails with ${errnoText(-page)}` })
      const eventfd = (): number => resources.fd(must("eventfd", this.#os.eventfd()))
      return await use(shareMapping(resources.mapping(page)), [eventfd(), eventfd()])
    } finally {
      resources.release()
    }
  }

  /** 32 bits of guest memory. */
  load32(memory: Mapping, offset: number): number {
    return this.#os.load32(memory, offset)
  }

  async solo(task: Order): Promise<Samples> {
    return (await this.#run([task]))[0]!
  }

  /** Two tasks at once, a thread each. */
  async pair(first: Order, second: Order): Promise<readonly [Samples, Samples]> {
    const [a, b] = await this.#run([first, second])
    return [a!, b!]
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#closeThreads()
    this.#resources.release()
  }

  /** Whoever asks waits until both threads have ended: nothing that they use may be released before. */
  async #closeThreads(): Promise<void> {
    const threads = this.#threads
    this.#threads = null
    if (threads !== null) this.#ending = Promise.all(threads.map((thread) => thread.close()))
    await this.#ending
  }

  async #run(tasks: ReadonlyArray<Order>): Promise<ReadonlyArray<Samples>> {
    if (this.#closed) throw new LiveFailed({ why: "the session is closed" })
    const streams = tasks.map((task) => `${this.#streams++} ${task.name}`)
    const inline = this.#inline
    if (inline !== null) return tasks.map((task, i) => runTask(inline(streams[i]!), task, null, () => false))
    this.#threads ??= [liveThread(this.#os, this.#recorded !== null), liveThread(this.#os, this.#recorded !== null)]
    const threads = this.#threads
    try {
      const outcomes = await Promise.all(tasks.map((task, i) => threads[i]!.run(task)))
      if (this.#recorded !== null) {
        for (const [i, { calls }] of outcomes.entries()) this.#recorded[streams[i]!] = [...calls]
      }
      return outcomes.map(({ samples }) => samples)
    } catch (error) {
      // The other thread of a pair waits for one that will not answer.
      await this.#closeThreads()
      throw error
    }
  }
}
