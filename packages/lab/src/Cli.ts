import * as Cause from "effect/Cause"
import * as CliConfig from "effect/cli/CliConfig"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { attest } from "./AttestCommand.ts"
import { breakEvenCommand } from "./BreakEvenCommand.ts"
import { compare } from "./CompareCommand.ts"
import { explore } from "./ExploreCommand.ts"
import { igvm } from "./IgvmCommand.ts"
import { InputInvalid, oneLine, shown } from "./InputInvalid.ts"
import { layout } from "./LayoutCommand.ts"
import { liveCommand } from "./LiveCommand.ts"
import { measure } from "./MeasureCommand.ts"
import { merge } from "./MergeCommand.ts"
import { migrate } from "./MigrateCommand.ts"
import { wantsColour, writeErrorLine, writeOut } from "./Output.ts"
import { profileCommand } from "./ProfileCommand.ts"
import { replay } from "./ReplayCommand.ts"
import { report as reportCommand } from "./ReportCommand.ts"
import { scenarios } from "./ScenariosCommand.ts"
import { schema } from "./SchemaCommand.ts"
import { sensitivityCommand } from "./SensitivityCommand.ts"
import { service } from "./ServiceCommand.ts"
import { sweep } from "./SweepCommand.ts"
import { tpmProxy } from "./TpmProxyCommand.ts"
import { trace } from "./TraceCommand.ts"
import { validateCommand } from "./ValidateCommand.ts"
import { verify } from "./VerifyCommand.ts"
import { packageVersion } from "./Version.ts"

/** What the shell gets to see. */
export const EXIT = { DONE: 0, RUN_FAILED: 1, BAD_USAGE: 2, INTERRUPTED: 130 } as const

const COMMANDS =
  "compare, report, sweep, merge, sensitivity, break-even, validate, profile, live, schema, igvm, measure, attest, verify, " +
  "service, tpm-proxy, migrate, replay, scenarios, explore, trace or layout"

const AFTER: { readonly [command: string]: string } = {
  profile: "derive",
  live: "probe, measure, compare or validate",
  service: "run or latency"
}

/** What may follow a command, by its path. */
const expectedAfter = (path: ReadonlyArray<string> | undefined): string => AFTER[path?.at(-1) ?? ""] ?? COMMANDS

const root = Command.make("vmpl-lab").pipe(
  Command.withDescription("Ways for a hypervisor to instantiate and run SEV-SNP VMPLs, simulated and compared"),
  Command.withSubcommands([
    compare,
    reportCommand,
    sweep,
    merge,
    sensitivityCommand,
    breakEvenCommand,
    validateCommand,
    profileCommand,
    liveCommand,
    schema,
    igvm,
    measure,
    attest,
    verify,
    replay,
    scenarios,
    explore,
    trace,
    layout,
    tpmProxy,
    service,
    migrate
  ])
)

// Help and version, when asked for, go to standard output; the library would also print help on every mistake.
const presenter = CliOutput.layerPresenter({
  present: (event) => {
    const formatter = CliOutput.defaultFormatter({ colors: wantsColour() })
    if (event._tag === "Version") return writeOut(`${event.version}\n`)
    if (event._tag === "Help" && event.reason !== "Implicit") {
      return writeOut(`${formatter.formatHelpDoc(event.helpDoc).trimEnd()}\n`)
    }
    return Effect.void
  }
})

const config = CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version] })

const hint = (suggestions: ReadonlyArray<string>): string =>
  suggestions.length === 0 ? "see --help" : `did you mean ${suggestions.join(" or ")}?`

/** A mistake on the command line, in the words of this tool: the library's own may take several lines. */
const usageLine = (error: CliError.CliError): string => {
  switch (error._tag) {
    case "ShowHelp":
      return error.errors[0] === undefined
        ? `no command given, expected ${expectedAfter(error.commandPath)}, see --help`
        : usageLine(error.errors[0])
    case "UnrecognizedOption":
      return `${error.option}: unknown option, ${hint(error.suggestions)}`
    case "UnknownSubcommand":
      return `${shown(error.subcommand)}: unknown command, expected ${expectedAfter(error.parent)}`
    case "MissingOption":
      return `--${error.option}: missing, expected this option`
    case "MissingArgument":
      return `${error.argument.toUpperCase()}: missing, expected this argument, see --help`
    case "InvalidValue":
      return invalidValueLine(error)
    case "UnexpectedArgument":
      return `${shown(error.arguments[0])}: unexpected argument, expected none here, see --help`
    default:
      return error.message
  }
}

const invalidValueLine = ({ option, value, expected }: CliError.InvalidValue): string => {
  const wanted = expected.replace(/^expected:? */i, "")
  return value === ""
    ? `--${option}: no value, expected ${wanted}`
    : `--${option}: expected ${wanted}, got ${shown(value)}`
}

/** An error that reached the edge, as its one line and its exit code. */
const report = (error: unknown): readonly [line: string, code: number] => {
  if (error instanceof InputInvalid) return [error.line, EXIT.BAD_USAGE]
  if (CliError.isCliError(error)) return [usageLine(error), EXIT.BAD_USAGE]
  return [`the run failed: ${error instanceof Error ? error.message : String(error)}`, EXIT.RUN_FAILED]
}

/**
 * Runs one command line (without program name). Never fails: every outcome becomes an exit code, and whatever went
 * wrong one line on standard error. A bug of ours adds its stack trace.
 */
export const runCli = (args: ReadonlyArray<string>) =>
  Command.runWith(root, { version: packageVersion() })(args).pipe(
    Effect.as<number>(EXIT.DONE),
    Effect.catchCause((cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.succeed<number>(EXIT.INTERRUPTED)
      const failure = Cause.findErrorOption(cause)
      if (failure._tag === "Some") {
        const [line, code] = report(failure.value)
        return Effect.as(writeErrorLine(oneLine(line)), code)
      }
      return Effect.as(writeErrorLine(`internal error, please report it\n${Cause.pretty(cause)}`), EXIT.RUN_FAILED)
    }),
    Effect.provide(Layer.mergeAll(presenter, config))
  )
