import type { MeasureOptions, Probe, Session } from "@vmpl-lab/kvm-live"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { numberFlag, optional, switchFlag } from "./Flags.ts"
import { InputInvalid } from "./InputInvalid.ts"
import { writeOut } from "./Output.ts"
import { writeOutputText } from "./OutputFile.ts"
import { progressBar } from "./Progress.ts"
import { RunFailed } from "./RunFailed.ts"
import { codeCommit } from "./Version.ts"

const device = Flag.String("device").pipe(
  Flag.withMetavar("PATH"),
  Flag.withDescription("KVM's device node"),
  Flag.withDefault("/dev/kvm")
)
const json = switchFlag("json").pipe(Flag.withDescription("Print one JSON object"))
const amount = {
  rounds: numberFlag("rounds", 1, 100).pipe(
    Flag.withDescription("Rounds through all cases, forwards and backwards in turn"),
    Flag.withDefault(4)
  ),
  quick: switchFlag("quick").pipe(
    Flag.withDescription("A twentieth of the samples: shows that it works, good for nothing else")
  )
}
const BASE = "epyc-9654p"
const base = Flag.String("base").pipe(
  Flag.withMetavar("NAME|FILE"),
  Flag.withDescription("Profile from which everything that is not measured is inherited"),
  Flag.withDefault(BASE)
)
const measuredProfileFlag = optional(Flag.String("profile")).pipe(
  Flag.withMetavar("FILE"),
  Flag.withDescription("Profile that live measure wrote; without it, this machine is measured first")
)

/** A quick run's share of the samples. */
const QUICK = 0.05

/** Everything that can go wrong with a real KVM is one line and exit code 1. */
const failed = (error: unknown): RunFailed =>
  new RunFailed({ why: error instanceof Error ? error.message : String(error) })

/** /dev/kvm and its threads for as long as the scope lasts: closed at its end, by an error, and on SIGINT. */
const openSession = Effect.fnUntraced(function* (path: string) {
  const live = yield* Effect.promise(() => import("@vmpl-lab/kvm-live"))
  const found = live.probeKvmDevice(path)
  if (found.state !== "usable") return yield* new RunFailed({ why: found.why })
  const session = yield* Effect.acquireRelease(
    Effect.try({ try: () => live.Session.open(path), catch: failed }),
    (session) => Effect.promise(() => session.close())
  )
  return { live, session, probed: live.probe(session) }
})

const optionsOf = (
  { rounds, quick }: { readonly rounds: number; readonly quick: boolean },
  onProgress: MeasureOptions["onProgress"]
): MeasureOptions => ({ rounds, share: quick ? QUICK : 1, onProgress })

const machineOf = ({ cpu, kernel, backend, nested, cpus }: Probe): string =>
  `${cpu}, ${cpus} CPUs, Linux ${kernel}, ${backend}${nested ? ", itself a guest" : ""}`

/** Measures, and makes a profile of it. */
const measureProfile = Effect.fnUntraced(function* (
  session: Session,
  probed: Probe,
  baseName: string,
  name: string,
  options: MeasureOptions
) {
  const live = yield* Effect.promise(() => import("@vmpl-lab/kvm-live"))
  const { loadProfile } = yield* Effect.promise(() => import("./ProfileFile.ts"))
  const inherited = yield* loadProfile(baseName, "base")
  const result = yield* Effect.tryPromise({ try: () => live.measure(session, options), catch: failed })
  const primitives = live.primitivesOf(result.measured)
  const profile = live.measuredProfile({ name, machine: machineOf(probed), base: inherited, measured: primitives })
  return { result, primitives, profile }
})

/** The profile that the command line names: one with measured prices. */
const measuredFile = Effect.fnUntraced(function* (path: string) {
  const { loadProfile } = yield* Effect.promise(() => import("./ProfileFile.ts"))
  const profile = yield* loadProfile(path, "profile")
  if (Object.values(profile.primitives).some(({ basis }) => basis === "measured")) return profile
  return yield* new InputInvalid({ line: `--profile: ${path} has no measured price, expected a file of live measure` })
})

const probe = Command.make(
  "probe",
  { device, json },
  Effect.fn("live probe")(function* (options) {
    const { probed } = yield* openSession(options.device)
    if (options.json) return yield* writeOut(`${JSON.stringify(probed, null, 2)}\n`)
    const { probeText } = yield* Effect.promise(() => import("./live/LiveText.ts"))
    yield* writeOut(`${probeText(probed)}\n`)
  }, Effect.scoped)
).pipe(Command.withDescription("What KVM there is, and what of it can be measured"))

const measure = Command.make(
  "measure",
  {
    device,
    ...amount,
    base,
    name: Flag.String("name").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("Name of the profile"),
      Flag.withDefault("live")
    ),
    output: optional(Flag.String("output").pipe(Flag.withAlias("o"))).pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("Write the profile here, and all samples beside it as FILE.samples.json")
    ),
    json
  },
  Effect.fn("live measure")(function* (options) {
    const { probed, session } = yield* openSession(options.device)
    const onProgress = yield* progressBar
    const amountOf = optionsOf(options, onProgress)
    const { result, primitives, profile } = yield* measureProfile(session, probed, options.base, options.name, amountOf)
    const { measureJson, measureText, samplesJson } = yield* Effect.promise(() => import("./live/LiveText.ts"))
    const context = { commit: codeCommit(), probe: probed, rounds: options.rounds, quick: options.quick }
    if (options.output !== undefined) {
      yield* writeOutputText(options.output, `${JSON.stringify(profile, null, 2)}\n`)
      yield* writeOutputText(`${options.output}.samples.json`, `${JSON.stringify(samplesJson(result, context))}\n`)
    }
    if (options.json) {
      return yield* writeOut(`${JSON.stringify({ ...measureJson(result, primitives, context), profile }, null, 2)}\n`)
    }
    yield* writeOut(`${measureText(result, primitives, context)}\n`)
  }, Effect.scoped)
).pipe(Command.withDescription("Measure transitions and write them as a profile"))

const compareFlags = { device, ...amount, profile: measuredProfileFlag, json }

/** What compare and validate share: the choreography on this machine beside the model's prediction. */
const comparison = Effect.fnUntraced(function* (options: {
  readonly device: string
  readonly rounds: number
  readonly quick: boolean
  readonly profile: string | undefined
}) {
  const given = options.profile === undefined ? null : yield* measuredFile(options.profile)
  const { probed, session } = yield* openSession(options.device)
  const onProgress = yield* progressBar
  const amountOf = optionsOf(options, onProgress)
  const profile = given ?? (yield* measureProfile(session, probed, BASE, "live", amountOf)).profile
  const { compareLive } = yield* Effect.promise(() => import("./live/LiveCompare.ts"))
  const compared = yield* Effect.tryPromise({ try: () => compareLive(session, profile, amountOf), catch: failed })
  return { compared, profile, context: { commit: codeCommit(), probe: probed, ...options } }
})

const compare = Command.make(
  "compare",
  compareFlags,
  Effect.fn("live compare")(function* (options) {
    const { compared, profile, context } = yield* comparison(options)
    const { compareText } = yield* Effect.promise(() => import("./live/LiveText.ts"))
    yield* writeOut(
      options.json
        ? `${JSON.stringify({ ...context, profile: profile.name, ...compared }, null, 2)}\n`
        : `${compareText(compared, profile, context)}\n`
    )
  }, Effect.scoped)
).pipe(Command.withDescription("Act out the strategies on real vCPUs, beside the model's prediction"))

const validate = Command.make(
  "validate",
  compareFlags,
  Effect.fn("live validate")(function* (options) {
    const { compared, profile, context } = yield* comparison(options)
    const { errorsByStrategy } = yield* Effect.promise(() => import("./live/LiveCompare.ts"))
    const errors = errorsByStrategy(compared)
    const { validateText } = yield* Effect.promise(() => import("./live/LiveText.ts"))
    yield* writeOut(
      options.json
        ? `${JSON.stringify({ ...context, profile: profile.name, errors, ...compared }, null, 2)}\n`
        : `${validateText(errors, compared, context)}\n`
    )
  }, Effect.scoped)
).pipe(Command.withDescription("How well the model predicts that, given only what was measured"))

/** `vmpl-lab live`: a real /dev/kvm. */
export const liveCommand = Command.make("live").pipe(
  Command.withDescription("Measure a real /dev/kvm, and hold the model against it"),
  Command.withSubcommands([probe, measure, compare, validate])
)
