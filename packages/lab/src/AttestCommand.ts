import { join } from "node:path"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { BadBytes } from "./attestation/BadBytes.ts"
import { checkFolder, writeFolder } from "./attestation/EvidenceFolder.ts"
import { isFirmwareError, loadIgvm } from "./FirmwareFile.ts"
import { igvmFlag, numberFlag, optional, profileFlag, seedFlag, switchFlag } from "./Flags.ts"
import { nonceFlag } from "./HexFlags.ts"
import { readInputFile } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeOut } from "./Output.ts"
import { RunFailed } from "./RunFailed.ts"

/** Largest file of a certificate that is taken: what a variable may hold. */
const CERTIFICATE_BYTES_MAX = 0x8000
/** Largest TPMT_PUBLIC that is taken; one of RSA-4096 has less. */
const EK_BYTES_MAX = 4096

const flags = {
  vmpl: numberFlag("vmpl", 0, 3).pipe(
    Flag.withDescription("Level that the report is about; 0: the SVSM and its services"),
    Flag.withDefault(0)
  ),
  nonce: nonceFlag("nonce"),
  service: optional(Flag.Literals("service", ["vtpm", "uefi"])).pipe(
    Flag.withDescription("Ask for this service's manifest only, at VMPL 0")
  ),
  ek: optional(Flag.String("ek")).pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("TPMT_PUBLIC of the vTPM's EK; the project's own test key unless given")
  ),
  igvm: igvmFlag,
  pk: optional(Flag.String("pk")).pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("Certificate, PEM or DER, that is enrolled as PK of the UEFI variables, with --service uefi")
  ),
  key: Flag.Literals("key", ["VCEK", "VLEK"]).pipe(
    Flag.withDescription("Key of the chip, or of the cloud's operator"),
    Flag.withDefault("VCEK" as const)
  ),
  reportVersion: Flag.Literals("report-version", ["2", "3", "5"]).pipe(
    Flag.withDescription("Version of the report that the firmware writes"),
    Flag.withDefault("3" as const)
  ),
  processor: Flag.Literals("processor", ["Milan", "Genoa", "Turin"]).pipe(
    Flag.withDescription("Processor whose reports and certificates these are"),
    Flag.withDefault("Genoa" as const)
  ),
  strategy: Flag.String("strategy").pipe(
    Flag.withMetavar("KEY/VARIANT"),
    Flag.withDescription("How the host runs VMPLs"),
    Flag.withDefault("multi-vmpl-vcpu")
  ),
  profile: profileFlag,
  seed: seedFlag,
  output: Flag.String("output").pipe(
    Flag.withAlias("o"),
    Flag.withMetavar("DIR"),
    Flag.withDescription("Folder for report, certificates and manifest; made where it is missing")
  ),
  json: switchFlag("json").pipe(Flag.withDescription("Print one JSON object instead of the list of files"))
}

const bad = (line: string) => Effect.fail(new InputInvalid({ line: oneLine(line) }))

/** The protocol of UEFI variables, where it is asked for; with a certificate as PK there is secure boot. */
const uefiProtocols = Effect.fn("uefiProtocols")(function* (service: string | undefined, pk: string | undefined) {
  if (service !== "uefi") {
    if (pk === undefined) return []
    return yield* bad("--pk: given without --service uefi, expected both: the key is one of UEFI variables")
  }
  const [{ uefiMm }, { pkcs7Verifier, platformKey }] = yield* Effect.promise(() =>
    Promise.all([import("@vmpl-lab/svsm"), import("./uefi/index.ts")])
  )
  if (pk === undefined) return [uefiMm({ verifier: pkcs7Verifier })]
  const bytes = yield* readInputFile(pk, CERTIFICATE_BYTES_MAX)
  const PK = yield* Effect.try({ try: () => platformKey(bytes, pk), catch: (cause) => cause }).pipe(
    Effect.catch((cause) => (cause instanceof BadBytes ? bad(`--pk: ${cause.message}`) : Effect.die(cause)))
  )
  return [uefiMm({ verifier: pkcs7Verifier, enrolled: { PK } })]
})

/** `vmpl-lab attest`: a simulated guest asks for a report, through its hypervisor, and what it got is written down. */
export const attest = Command.make(
  "attest",
  flags,
  Effect.fn("attest")(function* ({ vmpl, nonce, service, json, ...options }) {
    if (service !== undefined && vmpl !== 0) {
      return yield* bad(`--service: given with --vmpl ${vmpl}, expected --vmpl 0: services attest at the SVSM's level`)
    }
    if (options.ek !== undefined && vmpl !== 0) {
      return yield* bad(`--ek: given with --vmpl ${vmpl}, expected --vmpl 0, where there are services`)
    }
    const protocols = yield* uefiProtocols(service, options.pk)
    const [
      { runAttest },
      { evidenceFiles },
      { testEndorsementPublic },
      { expectPublicArea },
      { SERVICE_GUID },
      choice,
      { loadProfile }
    ] = yield* Effect.promise(() =>
      Promise.all([
        import("./attestation/AttestRun.ts"),
        import("./attestation/EvidenceFiles.ts"),
        import("./attestation/EndorsementPublic.ts"),
        import("./attestation/PublicArea.ts"),
        import("@vmpl-lab/svsm"),
        import("./StrategyNames.ts"),
        import("./ProfileFile.ts")
      ])
    )
    const [strategy, ...more] = yield* choice.askedStrategies([options.strategy])
    if (strategy === undefined || more.length > 0) {
      return yield* bad(`--strategy: ${JSON.stringify(options.strategy)} has variants, expected one: KEY/VARIANT`)
    }
    yield* checkFolder(options.output)
    const profile = yield* loadProfile(options.profile)
    const ek = options.ek === undefined ? testEndorsementPublic() : yield* readInputFile(options.ek, EK_BYTES_MAX)
    yield* Effect.try({ try: () => expectPublicArea(options.ek ?? "EK", ek), catch: (cause) => cause }).pipe(
      Effect.catch((cause) => (cause instanceof BadBytes ? bad(`--ek: ${cause.message}`) : Effect.die(cause)))
    )
    const input = {
      vmpl,
      nonce,
      service: service === undefined ? null : SERVICE_GUID[service === "vtpm" ? "VTPM" : "UEFI_MM"],
      services: [{ guid: SERVICE_GUID.VTPM, bytes: () => ek }],
      protocols,
      key: options.key,
      reportVersion: Number(options.reportVersion) as 2 | 3 | 5,
      processor: options.processor,
      strategy,
      profile,
      seed: options.seed,
      igvm: options.igvm === undefined ? undefined : yield* loadIgvm(options.igvm)
    }
    const outcome = yield* Effect.try({
      try: () => runAttest(input),
      catch: (cause) => {
        if (isFirmwareError(cause)) return new InputInvalid({ line: oneLine(cause.message) })
        return cause instanceof RunFailed ? cause : new RunFailed({ why: String(cause) })
      }
    })
    if (outcome.result !== 0) {
      const by = vmpl === 0 ? `the SVSM answers 0x${outcome.result.toString(16)}` : "the guest's message is refused"
      return yield* new RunFailed({ why: by })
    }
    const files = evidenceFiles(input, outcome)
    yield* writeFolder(options.output, files)
    const names = [...files.keys()]
    if (!json) return yield* writeOut(`${names.map((name) => join(options.output, name)).join("\n")}\n`)
    const measurement = Buffer.from(outcome.measurement).toString("hex")
    const summary = { folder: options.output, files: names, vmpl, key: options.key, measurement }
    yield* writeOut(`${JSON.stringify(summary, null, 2)}\n`)
  })
).pipe(Command.withDescription("Boot a simulated guest and have it ask for an attestation report"))
