import type { KvmTraceSink, TracePoint } from "@vmpl-lab/hypervisor"
import type { HostThread } from "@vmpl-lab/sim"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { numberFlag, optional, profileFlag, seedFlag, switchFlag } from "./Flags.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeOut } from "./Output.ts"

/** Events of the simulation between two writes. */
const EVENTS_PER_CHUNK = 2_000

const flags = {
  guest: Flag.String("guest").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription(
      "What runs: svsm-calls, or a guest without an SVSM: init-sipi, ap-jump-table, ap-creation, events"
    ),
    Flag.withDefault("svsm-calls")
  ),
  strategy: Flag.String("strategy").pipe(
    Flag.withMetavar("KEY[/VARIANT]"),
    Flag.withDescription("Way to instantiate and run VMPLs; of a key the first variant"),
    Flag.withDefault("multi-vmpl-vcpu")
  ),
  vcpus: optional(numberFlag("vcpus", 1, 512)).pipe(Flag.withDescription("Guest vCPUs, instead of the guest's usual")),
  calls: numberFlag("calls", 0, 1_000_000).pipe(
    Flag.withDescription("SVSM calls of each vCPU of svsm-calls"),
    Flag.withDefault(2)
  ),
  profile: profileFlag,
  seed: seedFlag,
  filter: Flag.String("filter").pipe(
    Flag.withMetavar("EVENT[:TEXT]"),
    Flag.withDescription("Only events of this name, where * is any text, with this text in them; several: any of them"),
    Flag.atLeast(0)
  ),
  fullTime: switchFlag("full-time").pipe(Flag.withDescription("Nanoseconds, as trace-cmd report -t")),
  json: switchFlag("json").pipe(Flag.withDescription("Print one JSON object per line"))
}

/** `vmpl-lab trace`: KVM's trace points of one run, in virtual time. */
export const trace = Command.make(
  "trace",
  flags,
  Effect.fn("trace")(function* (options) {
    const { parseTraceFilter, passes, traceLine } = yield* Effect.promise(() => import("./TraceText.ts"))
    const { TRACE_POINTS } = yield* Effect.promise(() => import("@vmpl-lab/hypervisor"))
    const { prepareTrace, TRACED_GUESTS } = yield* Effect.promise(() => import("./TracedGuests.ts"))
    const { loadProfile } = yield* Effect.promise(() => import("./ProfileFile.ts"))
    const { askedStrategies } = yield* Effect.promise(() => import("./StrategyNames.ts"))
    const unknown = (flag: string, value: string, known: ReadonlyArray<string>) =>
      new InputInvalid({
        line: oneLine(`--${flag}: ${JSON.stringify(value)} unknown, expected one of ${known.join(", ")}`)
      })
    const strategy = (yield* askedStrategies([options.strategy]))[0]!
    if (!TRACED_GUESTS.includes(options.guest)) return yield* unknown("guest", options.guest, TRACED_GUESTS)
    const filters = options.filter.map(parseTraceFilter)
    const deaf = options.filter.find((_, i) => !TRACE_POINTS.some((point) => filters[i]!.event.test(point)))
    if (deaf !== undefined) return yield* unknown("filter", deaf, TRACE_POINTS)
    const profile = yield* loadProfile(options.profile)

    let lines: Array<string> = []
    const sink: KvmTraceSink = (thread: HostThread, point: TracePoint, text: string) => {
      if (!passes(filters, point, text)) return
      lines.push(
        options.json
          ? JSON.stringify({ thread: thread.name, cpu: thread.core, ns: thread.time, event: point, text })
          : traceLine(thread, point, text, options.fullTime)
      )
    }
    const { guest, vcpus, calls, seed } = options
    const run = prepareTrace({ guest, strategy, vcpus, calls, profile, seed, sink })
    if (!options.json) yield* writeOut(`cpus=${run.cores}\n`)
    for (;;) {
      const more = run.stepMany(EVENTS_PER_CHUNK)
      if (lines.length > 0) {
        const text = `${lines.join("\n")}\n`
        lines = []
        yield* writeOut(text)
      }
      if (!more) break
      yield* Effect.yieldNow
    }
    const failure = run.failure()
    if (failure !== null) {
      const { RunFailed } = yield* Effect.promise(() => import("./Compare.ts"))
      return yield* new RunFailed({ why: failure })
    }
  })
).pipe(Command.withDescription("Print KVM's trace points of one run, as trace-cmd report does"))
