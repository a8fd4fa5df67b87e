import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { numberFlag, profileFlag, seedFlag, switchFlag } from "./Flags.ts"
import { InputInvalid } from "./InputInvalid.ts"
import { writeErrorLine, writeOut } from "./Output.ts"
import type { ClientLevels } from "./tpm/ClientWork.ts"
import { codeCommit } from "./Version.ts"

const shared = {
  strategy: Flag.String("strategy").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("Only this strategy: KEY, or KEY/VARIANT; several times, or a list by commas"),
    Flag.atLeast(0)
  ),
  profile: profileFlag,
  seed: seedFlag,
  calls: numberFlag("calls", 1, 100_000).pipe(
    Flag.withDescription("Calls of each kind under each strategy"),
    Flag.withDefault(20)
  ),
  json: switchFlag("json").pipe(Flag.withDescription("Print one JSON object"))
}

const runFlags = {
  file: Argument.String("file").pipe(Argument.withDescription("TypeScript file whose default export is the service")),
  ...shared,
  vmpl: Flag.Literals("vmpl", ["1", "2", "3"]).pipe(
    Flag.withDescription("Level of the guest that calls"),
    Flag.withDefault("2")
  ),
  serviceVmpl: Flag.Literals("service-vmpl", ["0", "1"]).pipe(
    Flag.withDescription("Level of the service: in the SVSM, or in a program at VMPL1"),
    Flag.withDefault("0")
  ),
  fuzz: numberFlag("fuzz", 0, 1_000_000).pipe(
    Flag.withDescription("Random calls under each strategy, most of them hostile"),
    Flag.withDefault(0)
  )
}

/** `vmpl-lab service run`: a user's service for the SVSM, called from a guest under each strategy. */
const run = Command.make(
  "run",
  runFlags,
  Effect.fn("service run")(function* (options) {
    const [{ loadService }, { runService }, { serviceText }, { askedStrategies }, { loadProfile }] =
      yield* Effect.promise(() =>
        Promise.all([
          import("./service/ServiceFile.ts"),
          import("./service/RunService.ts"),
          import("./service/ServiceTable.ts"),
          import("./StrategyNames.ts"),
          import("./ProfileFile.ts")
        ])
      )
    const levels = { vmpl: Number(options.vmpl), serviceVmpl: Number(options.serviceVmpl) } as ClientLevels
    if (levels.vmpl <= levels.serviceVmpl) {
      return yield* new InputInvalid({ line: "--vmpl: 1, expected 2 or 3 with --service-vmpl 1" })
    }
    const strategies = yield* askedStrategies(options.strategy)
    const profile = yield* loadProfile(options.profile)
    const service = yield* loadService(options.file)
    const user = Object.entries(service.calls).find(([, { uses }]) => uses.includes("firmware"))
    if (levels.serviceVmpl === 1 && user !== undefined) {
      const line = `${options.file}: calls.${user[0]}.uses: firmware, but the SVSM's key is not for VMPL1 (--service-vmpl 1)`
      return yield* new InputInvalid({ line })
    }
    const { seed, calls, fuzz } = options
    const outcome = yield* runService({ service, strategies, profile, seed, calls, fuzz, levels })
    if (!options.json) return yield* writeOut(`${serviceText(service.name, levels, outcome)}\n`)
    const head = { seed, commit: codeCommit(), profile: profile.name, service: service.name, ...levels }
    yield* writeOut(`${JSON.stringify({ ...head, ...outcome }, null, 2)}\n`)
  })
).pipe(Command.withDescription("Run a service for the SVSM from a file: latency under each strategy, and random calls"))

/** `vmpl-lab service latency`: every call of the SVSM's own protocols under every strategy. */
const latency = Command.make(
  "latency",
  shared,
  Effect.fn("service latency")(function* (options) {
    const [{ serviceLatency }, { latencyNotes, latencyTable }, { swtpm }, { askedStrategies }, { loadProfile }] =
      yield* Effect.promise(() =>
        Promise.all([
          import("./service/Latency.ts"),
          import("./service/ServiceTable.ts"),
          import("./tpm/Swtpm.ts"),
          import("./StrategyNames.ts"),
          import("./ProfileFile.ts")
        ])
      )
    const strategies = yield* askedStrategies(options.strategy)
    const profile = yield* loadProfile(options.profile)
    const { seed, calls } = options
    const rows = yield* Effect.scoped(
      Effect.gen(function* () {
        const tpm = yield* swtpm().pipe(
          Effect.catchTag("RunFailed", ({ why }) =>
            Effect.as(writeErrorLine(`calls of a TPM are left out: ${why}`), null)
          )
        )
        return yield* serviceLatency({ strategies, profile, seed, calls, tpm })
      })
    )
    if (!options.json) {
      const text = ["Latency of SVSM calls", latencyTable(rows), "", latencyNotes()].join("\n")
      return yield* writeOut(`${text}\n`)
    }
    yield* writeOut(
      `${JSON.stringify({ seed, commit: codeCommit(), profile: profile.name, latency: rows }, null, 2)}\n`
    )
  })
).pipe(Command.withDescription("Latency of every call that an SVSM serves, under each strategy"))

/** `vmpl-lab service`. */
export const service = Command.make("service").pipe(
  Command.withDescription("Services of an SVSM"),
  Command.withSubcommands([run, latency])
)
