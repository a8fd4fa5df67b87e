import {
  type Cost,
  CostTable,
  Host,
  type HostOptions,
  type HostProgram,
  type HostThread,
  PRIMITIVE,
  PRIMITIVES,
  type PrimitiveName,
  type Profile,
  WAIT
} from "../src/index.ts"

/** A price: nanoseconds, or knots of a quantile function. */
export type Price = number | NonNullable<Cost["quantiles"]>

/** A machine whose primitives cost what the test says, and nothing where it says nothing. */
export const profileOf = (prices: Partial<Record<PrimitiveName, Price>>): Profile => {
  const cost = (price: Price): Cost => ({
    ns: typeof price === "number" ? price : 0,
    low: 0,
    high: 0,
    basis: "assumed",
    source: "none",
    quantiles: typeof price === "number" ? undefined : price
  })
  const primitives = Object.fromEntries(PRIMITIVES.map((name) => [name, cost(prices[name] ?? 0)])) as unknown
  return { name: "test", machine: "test", primitives: primitives as Profile["primitives"], sums: [] }
}

/** Two hand-off prices that no sum of steps can hide, and steps of several lengths. */
export const SAME = 7
export const CROSS = 13
/** What it costs to see a wake while polling, to go on on another core, and to leave a deep idle state. */
export const POLL_WAKE = 3
export const MIGRATION = 17
export const DEEP = 1_009
export const STEP = { short: PRIMITIVE.ioctl, long: PRIMITIVE.kvm_dispatch, slice: PRIMITIVE.create_vm }
export const SHORT = 100
export const LONG = 10_000
export const SLICE = 3_000_000

export const newHost = (cores: number, options: HostOptions = {}): Host =>
  new Host(
    cores,
    new CostTable(
      profileOf({
        thread_handoff_same_core: SAME,
        thread_handoff_cross_core: CROSS,
        halt_poll_wake: POLL_WAKE,
        thread_migration: MIGRATION,
        deep_idle_exit: DEEP,
        ioctl: SHORT,
        kvm_dispatch: LONG,
        create_vm: SLICE
      }),
      1
    ),
    null,
    options
  )

/** A thread with its program. */
export const spawn = (
  host: Host,
  name: string,
  affinity: number,
  program: (thread: HostThread) => HostProgram
): HostThread => {
  const thread = host.spawn(name, affinity)
  thread.program = program(thread)
  return thread
}

/** Lets everything before the thread's time happen first. */
export function* sync(host: Host, thread: HostThread): HostProgram {
  while (host.ahead(thread)) yield WAIT.SYNC
}

/** A program that takes steps, one after the other and in order with the others, then ends. */
export const busy = (host: Host, ...steps: ReadonlyArray<number>) =>
  function* (thread: HostThread): HostProgram {
    for (const step of steps) {
      thread.charge(step)
      yield* sync(host, thread)
    }
  }

export const runAll = (host: Host): void => {
  while (host.stepMany(1));
}

/** A thread that sleeps first, then notes where and when it runs, then takes a step. */
export const sleeper = (
  host: Host,
  name: string,
  affinity: number,
  log: Array<string>,
  step = STEP.short
): HostThread => {
  const thread = spawn(host, name, affinity, function* (self) {
    for (;;) {
      log.push(`${name}@${self.core}:${self.time}`)
      self.charge(step)
      yield* sync(host, self)
      yield WAIT.BLOCK
    }
  })
  return thread
}

/** A thread that wakes others, with a short step before each. */
export const waker = (host: Host, affinity: number, ...targets: ReadonlyArray<HostThread>): HostThread =>
  spawn(host, "waker", affinity, function* (self) {
    for (const target of targets) {
      self.charge(STEP.short)
      yield* sync(host, self)
      host.wake(target, self, null)
    }
  })

/** A program of one piece, which meets nobody. */
export const ended = (piece: (thread: HostThread) => void) =>
  function* (self: HostThread): HostProgram {
    piece(self)
    yield* []
  }
