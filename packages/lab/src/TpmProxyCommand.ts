import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { numberFlag, optional, profileFlag, seedFlag, switchFlag } from "./Flags.ts"
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
      profiles
    ] = yield* Effect.promise(() =>
      Promise.all([
        import("./tpm/ProxyServer.ts"),
        import("./tpm/GuestTpm.ts"),
        import("./tpm/Swtpm.ts"),
        import("./tpm/TpmSummary.ts"),
        import("./tpm/TpmMessage.ts"),
        import("./tpm/ServiceGuest.ts"),
        import("./ProfileFile.ts")
      ])
    )
    const address = listenAddress(options.listen)
    if (typeof address === "string") return yield* new InputInvalid({ line: oneLine(`--listen: ${address}`) })
    const strategy = yield* guest.oneStrategy(options.strategy)
    const profile = yield* profiles.loadProfile(options.profile)
    const { name, launched } = guest.serviceGuest(strategy)
    const log = new TpmLog()
    const serve = Effect.scoped(
      Effect.gen(function* () {
        const tpm = yield* swtpm()
        const { send, end } = yield* guestTpm(tpm, { ...launched, profile, seed: options.seed })
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
