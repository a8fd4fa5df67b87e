/**
 * Speed of the host's scheduler alone: `HandOff.ts <hand-offs of each ring>`. Rings of threads on pinned cores; in each
 * ring one thread works, wakes the next one and sleeps, and where two meet on a core, one waits. `../simpy/handoff.py`
 * is the same model: the digest is over the number of hand-offs and when each thread last ended its work.
 */
import { createHash } from "node:crypto"
import { performance } from "node:perf_hooks"
import {
  CostTable,
  Host,
  type HostProgram,
  type HostThread,
  PRIMITIVE,
  PRIMITIVES,
  type Profile,
  WAIT
} from "@vmpl-lab/sim"

const CORES = 8
const RINGS = 6
const RING_SIZE = 5
const HAND_OFF_NS = 1201
/** Primes, so that hardly ever two things happen at one instant. */
const WORK_NS = [1009, 1511, 2003, 2503, 3001]
const GREATEST_START_NS = 97

/** Primitives that stand for the pieces of work here. */
const WORK = [PRIMITIVE.ioctl, PRIMITIVE.kvm_dispatch, PRIMITIVE.vmm_dispatch, PRIMITIVE.create_vm, PRIMITIVE.ipi_kick]

const nsOf = (name: (typeof PRIMITIVES)[number]): number => {
  if (name === "thread_handoff_same_core" || name === "thread_handoff_cross_core") return HAND_OFF_NS
  return WORK_NS[WORK.indexOf(PRIMITIVE[name])] ?? 0
}

const profile: Profile = {
  name: "hand-offs",
  machine: "none",
  primitives: Object.fromEntries(
    PRIMITIVES.map((name) => [name, { ns: nsOf(name), low: 0, high: 0, basis: "assumed", source: "this benchmark" }])
  ) as unknown as Profile["primitives"],
  sums: []
}

interface Ring {
  left: number
}

function* work(host: Host, thread: HostThread, primitive: number, ring: Ring, next: () => HostThread): HostProgram {
  for (;;) {
    thread.charge(primitive)
    while (host.ahead(thread)) yield WAIT.SYNC
    ended[thread.id] = thread.time
    if (--ring.left >= 0) host.wake(next(), thread, null)
    yield WAIT.BLOCK
  }
}

const ended: Array<number> = []

const run = (handOffs: number): number => {
  const host = new Host(CORES, new CostTable(profile, 1))
  ended.length = 0
  for (let r = 0; r < RINGS; r++) {
    const ring = { left: handOffs }
    const threads: Array<HostThread> = []
    for (let i = 0; i < RING_SIZE; i++) {
      const thread = host.spawn(`${r}.${i}`, (r + 3 * i) % CORES)
      ended[thread.id] = 0
      thread.program = work(host, thread, WORK[(r + i) % WORK.length]!, ring, () => threads[(i + 1) % RING_SIZE]!)
      threads.push(thread)
    }
    host.start(threads[0]!, r * GREATEST_START_NS)
  }
  const begin = performance.now()
  while (host.stepMany(50_000)) {}
  return (performance.now() - begin) / 1e3
}

const handOffs = Number(process.argv[2])
run(Math.floor(handOffs / 10))
const seconds = run(handOffs)
const digest = createHash("sha256").update(`${RINGS * handOffs}:${ended.join(";")}`)
const values = { handOffsPerSecond: (RINGS * handOffs) / seconds }
process.stdout.write(`${JSON.stringify({ values, digest: digest.digest("hex") })}\n`)
