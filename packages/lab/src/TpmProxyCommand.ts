import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { checkFolder, writeFolder } from "./attestation/EvidenceFolder.ts"
import { numberFlag, optional, profileFlag, seedFlag, switchFlag } from "./Flags.ts"
import { nonceFlag } from "./HexFlags.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeErrorLine, writeOut } from "./Output.ts"
import { codeCommit } from "./Version.ts"

const flags = {
  listen: Flag.String("listen").pipe(
    Flag.withMetavar("HOST:PORT"),
    Flag.withDescription("Loopback address of the command port; the platform port is the next one"),
    Flag.withDefault("127.0.0.1:2321")
  ),
  strategy: Flag.String("strategy").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("How VMPLs are run: one KEY or KEY/VARIANT"),
    Flag.withDefault("multi-vmpl-vcpu")
  ),
  profile: profileFlag,
  seed: seedFlag,
  clients: optional(numberFlag("clients", 1, 1_000_000)).pipe(
    Flag.withDescription("End after so many clients of the command port")
  ),
  attest: optional(Flag.String("attest")).pipe(
    Flag.withMetavar("DIR"),
    Flag.withDescription("First have the guest attest its vTPM, with the TPM's own EK, into this folder; with --nonce")
  ),
  nonce: optional(nonceFlag("nonce")),
  json: switchFlag("json").pipe(Flag.withDescription("Print the summary as one JSON object"))
}

/** `vmpl-lab tpm-proxy`: a guest's TPM for clients of the TPM simulator's protocol. */
export const tpmProxy = Command.make(
  "tpm-proxy",
  flags,
  Effect.fn("tpm-proxy")(function* (options) {
    const [
      { listenAddress, serveProxy },
      { guestTpm },
      { swtpm },
      { TpmLog, tpmTable },
      { commandName },
      guest,
      profiles,
      { ekPublic },
      { tpmEvidence },
      { hostCertificates }
    ] = yield* Effect.promise(() =>
      Promise.all([
        import("./tpm/ProxyServer.ts"),
        import("./tpm/GuestTpm.ts"),
        import("./tpm/Swtpm.ts"),
        import("./tpm/TpmSummary.ts"),
        import("./tpm/TpmMessage.ts"),
        import("./tpm/ServiceGuest.ts"),
        import("./ProfileFile.ts"),
        import("./tpm/Endorsement.ts"),
        import("./tpm/TpmEvidence.ts"),
        import("./attestation/AttestRun.ts")
      ])
    )
    const address = listenAddress(options.listen)
    if (typeof address === "string") return yield* new InputInvalid({ line: oneLine(`--listen: ${address}`) })
    const { attest, nonce } = options
    if ((attest === undefined) !== (nonce === undefined)) {
      const [given, missing] = attest === undefined ? ["nonce", "attest"] : ["attest", "nonce"]
      return yield* new InputInvalid({ line: oneLine(`--${given}: given without --${missing}, expected both`) })
    }
    if (attest !== undefined) yield* checkFolder(attest, "attest")
    const strategy = yield* guest.oneStrategy(options.strategy)
    const profile = yield* profiles.loadProfile(options.profile)
    const { name, launched } = guest.serviceGuest(strategy)
    const log = new TpmLog()
    const serve = Effect.scoped(
      Effect.gen(function* () {
        const tpm = yield* swtpm()
        const endorsementKey = attest === undefined ? undefined : yield* ekPublic(tpm)
        const {
          send,
          end,
          guest: booted
        } = yield* guestTpm(tpm, {
          ...launched,
          profile,
          seed: options.seed,
          endorsementKey,
          certificates: (identity) => hostCertificates(identity, "VCEK")
        })
        if (attest !== undefined && nonce !== undefined) {
          yield* writeFolder(attest, yield* tpmEvidence(booted, launched.svsm, nonce), "attest")
        }
        const tcti = `mssim:host=${address.host},port=${address.port}`
        yield* serveProxy({
          address,
          clients: options.clients,
          onListening: writeErrorLine(`the guest's TPM is at TPM2TOOLS_TCTI=${tcti}`),
          send: (command, locality) =>
            Effect.map(send(command, locality), ({ response, result, timing }) => {
              log.add(result === 0 ? commandName(command) : "refused by the SVSM", timing)
              return response
            })
        })
        yield* end
      })
    )
    // An interrupt is the usual end: the summary is for then, too.
    const summary = Effect.suspend(() => {
      const commands = log.summary()
      const { seed } = options
      if (!options.json) return writeOut(`${tpmTable(name, commands)}\n`)
      return writeOut(
        `${JSON.stringify({ seed, commit: codeCommit(), profile: profile.name, strategy: name, commands }, null, 2)}\n`
      )
    })
    yield* serve.pipe(
      Effect.onInterrupt(() => summary),
      Effect.tap(() => summary)
    )
  })
).pipe(Command.withDescription("Offer a guest's TPM to tpm2-tools, each command through guest, SVSM and swtpm"))
