import { join } from "node:path"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { EVIDENCE_BYTES_MAX, EvidenceFile } from "./attestation/EvidenceFile.ts"
import type { Check, Evidence } from "./attestation/Verify.ts"
import { numberFlag, optional, switchFlag } from "./Flags.ts"
import { digestFlag, nonceFlag } from "./HexFlags.ts"
import { readInputFile, readInputText } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeOut } from "./Output.ts"
import { RunFailed } from "./RunFailed.ts"

const file = (name: string, what: string) =>
  optional(Flag.String(name)).pipe(Flag.withMetavar("FILE"), Flag.withDescription(what))

const flags = {
  folder: Argument.String("dir").pipe(
    Argument.withMetavar("DIR"),
    Argument.withDescription("Folder that attest wrote"),
    Argument.optional
  ),
  report: file("report", "A report, instead of a folder, with --vcek, --ask and --ark"),
  vcek: file("vcek", "Certificate of its key, VCEK or VLEK, PEM or DER"),
  ask: file("ask", "Certificate of the ASK or ASVK, or of the whole chain in any order"),
  ark: file("ark", "Certificate of the ARK; where left out, the file of --ask has it"),
  manifest: file("manifest", "Manifest that an SVSM's report is bound to, with --nonce"),
  nonce: optional(nonceFlag("nonce")),
  measurement: optional(digestFlag("measurement")),
  vmpl: optional(numberFlag("vmpl", 0, 3)).pipe(Flag.withDescription("Level that the report must be about")),
  at: optional(Flag.String("at")).pipe(
    Flag.withMetavar("DATE"),
    Flag.withDescription("When certificates must be valid, such as 2025-06-01; now unless given")
  ),
  json: switchFlag("json").pipe(Flag.withDescription("Print one JSON object with every check"))
}

type FileOptions = { readonly [K in "report" | "vcek" | "ask" | "ark" | "manifest"]: string | undefined }

const bad = (line: string) => Effect.fail(new InputInvalid({ line: oneLine(line) }))

/** Runs a parser that throws BadBytes. */
const parsed = <A>(parse: () => A): Effect.Effect<A, InputInvalid> =>
  Effect.try({ try: parse, catch: (cause) => cause }).pipe(
    Effect.catch((cause) =>
      cause instanceof Error && "_tag" in cause && cause._tag === "BadBytes" ? bad(cause.message) : Effect.die(cause)
    )
  )

/** What a folder says of itself. */
const loadEvidenceFile = Effect.fn("loadEvidenceFile")(function* (path: string) {
  const text = yield* readInputText(path)
  const decoded = Schema.decodeUnknownResult(Schema.fromJsonString(EvidenceFile))(text)
  if (Result.isSuccess(decoded)) return decoded.success
  return yield* bad(`${path}: ${decoded.failure.message}`)
})

interface Files {
  readonly report: string
  readonly leaf: string
  readonly ask: string
  readonly ark: string
  readonly manifest: string | undefined
}

/** Parts of the evidence that are files. */
const readEvidence = Effect.fn("readEvidence")(function* (files: Files) {
  const [{ chainOf, readCertificates }, { parseReport }] = yield* Effect.promise(() =>
    Promise.all([import("./attestation/ReadCertificate.ts"), import("./attestation/Report.ts")])
  )
  const certificates = Effect.fnUntraced(function* (path: string) {
    const bytes = yield* readInputFile(path, EVIDENCE_BYTES_MAX)
    return yield* parsed(() => readCertificates(bytes, path))
  })
  const bytes = yield* readInputFile(files.report, EVIDENCE_BYTES_MAX)
  const report = yield* parsed(() => parseReport(bytes, files.report))
  const leaf = (yield* certificates(files.leaf))[0]!
  const chain = chainOf(leaf, yield* certificates(files.ask), yield* certificates(files.ark))
  if (files.ark === files.ask && Buffer.compare(chain.ark.der, chain.ask.der) === 0) {
    return yield* bad(`${files.ask}: no certificate of the one that issued its first, expected it, or --ark`)
  }
  return {
    report,
    leaf,
    ...chain,
    manifest: files.manifest === undefined ? undefined : yield* readInputFile(files.manifest, EVIDENCE_BYTES_MAX)
  }
})

/** A folder of `attest`: only the project's own root may have signed it. */
const folderEvidence = Effect.fn("folderEvidence")(function* (folder: string) {
  const said = yield* loadEvidenceFile(join(folder, "evidence.json"))
  const { testRootFingerprint } = yield* Effect.promise(() => import("./attestation/Verify.ts"))
  const evidence = yield* readEvidence({
    report: join(folder, "report.bin"),
    leaf: join(folder, `${said.key.toLowerCase()}.pem`),
    ask: join(folder, "ask.pem"),
    ark: join(folder, "ark.pem"),
    manifest: said.manifest ? join(folder, "manifest.bin") : undefined
  })
  return {
    ...evidence,
    rootKey: testRootFingerprint(),
    vmpl: said.vmpl,
    nonce: new Uint8Array(Buffer.from(said.nonce, "hex")),
    measurement: new Uint8Array(Buffer.from(said.measurement, "hex"))
  }
})

const filesEvidence = Effect.fn("filesEvidence")(function* (options: FileOptions, hasNonce: boolean) {
  for (const name of ["report", "vcek", "ask"] as const) {
    if (options[name] === undefined) return yield* bad(`--${name}: missing, expected it, or the folder of attest`)
  }
  if (options.manifest !== undefined && !hasNonce) return yield* bad("--manifest: given without --nonce, expected both")
  const { report, vcek, ask, ark, manifest } = options
  return yield* readEvidence({ report: report!, leaf: vcek!, ask: ask!, ark: ark ?? ask!, manifest })
})

const HEX_SHOWN = 32
/** Long hexadecimal as a table shows it: how it begins. JSON has all of it. */
const short = (detail: string): string =>
  detail.replace(/[0-9a-f]{64,}/g, (all) => `${all.slice(0, HEX_SHOWN)}... (${all.length / 2} bytes)`)

const table = Effect.fnUntraced(function* (checks: ReadonlyArray<Check>) {
  const { grid } = yield* Effect.promise(() => import("./Grid.ts"))
  const rows = checks.map(({ check, ok, detail }) => [check, ok ? "ok" : "FAILED", short(detail)])
  return grid(["check", "result", "found"], [], rows)
})

/** A day, or an instant of it in UTC. */
const DATE = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z)?$/

const instantOf = Effect.fn("instantOf")(function* (text: string | undefined) {
  if (text === undefined) return new Date()
  const instant = new Date(DATE.test(text) ? text : Number.NaN)
  // A day that a month does not have becomes one of the next month.
  if (!Number.isNaN(instant.getTime()) && instant.toISOString().startsWith(text.slice(0, 10))) return instant
  return yield* bad(`--at: expected a date such as 2025-06-01 or 2025-06-01T12:00:00Z, got ${JSON.stringify(text)}`)
})

/** `vmpl-lab verify`: is this report what it says it is? */
export const verify = Command.make(
  "verify",
  flags,
  Effect.fn("verify")(function* ({ folder, json, nonce, measurement, vmpl, at, ...options }) {
    const path = Option.getOrUndefined(folder)
    const named = (["report", "vcek", "ask", "ark", "manifest"] as const).find((name) => options[name] !== undefined)
    if (path !== undefined && named !== undefined) {
      return yield* bad(`--${named}: given with the folder ${path}, expected one of the two`)
    }
    const instant = yield* instantOf(at)
    const given = path === undefined ? yield* filesEvidence(options, nonce !== undefined) : yield* folderEvidence(path)
    const { verifyEvidence } = yield* Effect.promise(() => import("./attestation/Verify.ts"))
    const evidence: Evidence = {
      ...given,
      at: instant,
      ...(nonce === undefined ? {} : { nonce }),
      ...(measurement === undefined ? {} : { measurement }),
      ...(vmpl === undefined ? {} : { vmpl })
    }
    const checks = verifyEvidence(evidence)
    const failed = checks.filter(({ ok }) => !ok)
    if (json) {
      const { reportJson } = yield* Effect.promise(() => import("./attestation/ReportJson.ts"))
      const all = { verified: failed.length === 0, checks, report: reportJson(evidence.report) }
      yield* writeOut(`${JSON.stringify(all, null, 2)}\n`)
    } else yield* writeOut(`${yield* table(checks)}\n`)
    if (failed.length > 0) {
      return yield* new RunFailed({ why: `not verified: ${failed.map(({ check }) => check).join(", ")}` })
    }
  })
).pipe(Command.withDescription("Verify an attestation report, its certificates and what it is bound to"))
