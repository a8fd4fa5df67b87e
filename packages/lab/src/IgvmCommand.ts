import { createPrivateKey } from "node:crypto"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { fitting, loadFirmware } from "./FirmwareFile.ts"
import { hexFlag, numberFlag, optional, seedFlag } from "./Flags.ts"
import { bytesFlag } from "./HexFlags.ts"
import { readInputText } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeOut } from "./Output.ts"
import { writeOutputBytes } from "./OutputFile.ts"

const file = (name: string, what: string) =>
  optional(Flag.String(name)).pipe(Flag.withMetavar("FILE"), Flag.withDescription(what))

const ID_SIZE = 16

const flags = {
  firmware: file("firmware", "OVMF image; without it, a small image made here"),
  scenario: Flag.String("scenario").pipe(
    Flag.withMetavar("NAME|FILE"),
    Flag.withDescription("Workload that the SVSM is made for"),
    Flag.withDefault("default")
  ),
  seed: seedFlag,
  vcpus: optional(numberFlag("vcpus", 1, 512)).pipe(
    Flag.withDescription("Guest vCPUs that there is room for, instead of the scenario's")
  ),
  guestVmpl: optional(numberFlag("guest-vmpl", 1, 2)).pipe(
    Flag.withDescription("Level at which the guest boots, instead of the scenario's")
  ),
  policy: hexFlag("policy", Number.MAX_SAFE_INTEGER).pipe(
    Flag.withDescription("Guest policy, for LAUNCH_START"),
    Flag.withDefault(0x3_0000)
  ),
  idKey: file("id-key", "Private key of P-384, PEM: signs an ID block, which LAUNCH_FINISH then checks"),
  authorKey: file("author-key", "Private key of P-384, PEM: signs the ID key, with --id-key"),
  familyId: optional(bytesFlag("family-id", ID_SIZE)).pipe(Flag.withDescription("Of the ID block: 16 bytes")),
  imageId: optional(bytesFlag("image-id", ID_SIZE)).pipe(Flag.withDescription("Of the ID block: 16 bytes")),
  svn: optional(numberFlag("svn", 0, 0xffff_ffff)).pipe(Flag.withDescription("Of the ID block: version of the guest")),
  output: Flag.String("output").pipe(
    Flag.withAlias("o"),
    Flag.withMetavar("FILE"),
    Flag.withDescription("Where the IGVM file goes")
  )
}

const bad = (line: string) => Effect.fail(new InputInvalid({ line: oneLine(line) }))

/** The scalar of a private key of P-384 in a PEM file. */
const loadScalar = Effect.fn("loadScalar")(function* (path: string) {
  const text = yield* readInputText(path)
  return yield* Effect.try({
    try: () => {
      const { crv, d } = createPrivateKey(text).export({ format: "jwk" })
      if (crv !== "P-384" || d === undefined) throw new Error("another curve or kind")
      return BigInt(`0x${Buffer.from(d, "base64url").toString("hex")}`)
    },
    catch: () => new InputInvalid({ line: oneLine(`${path}: no private key of P-384, expected one in PEM`) })
  })
})

interface OwnerOptions {
  readonly idKey: string | undefined
  readonly authorKey: string | undefined
  readonly familyId: Uint8Array | undefined
  readonly imageId: Uint8Array | undefined
  readonly svn: number | undefined
}

/** What goes into the ID block; undefined without a key that signs it. */
const ownerOf = Effect.fn("ownerOf")(function* ({ idKey, authorKey, familyId, imageId, svn }: OwnerOptions) {
  if (idKey === undefined) {
    const others = { "author-key": authorKey, "family-id": familyId, "image-id": imageId, svn }
    const lone = Object.entries(others).find(([, value]) => value !== undefined)
    return lone === undefined ? undefined : yield* bad(`--${lone[0]}: given without --id-key, expected both`)
  }
  return {
    familyId: familyId ?? new Uint8Array(ID_SIZE),
    imageId: imageId ?? new Uint8Array(ID_SIZE),
    svn: svn ?? 0,
    idKey: yield* loadScalar(idKey),
    authorKey: authorKey === undefined ? undefined : yield* loadScalar(authorKey)
  }
})

/** `vmpl-lab igvm`: firmware and SVSM as one IGVM file, for `measure`, `compare` and `attest`. */
export const igvm = Command.make(
  "igvm",
  flags,
  Effect.fn("igvm")(function* ({ firmware, seed, guestVmpl, policy, output, ...options }) {
    const [{ builtInFirmware }, { scenarioLaunch }, { igvmImage }, scenarios] = yield* Effect.promise(() =>
      Promise.all([
        import("./Compare.ts"),
        import("./ScenarioLaunch.ts"),
        import("./IgvmImage.ts"),
        import("./ScenarioFile.ts")
      ])
    )
    const owner = yield* ownerOf(options)
    const scenario = scenarios.overrideScenario(yield* scenarios.loadScenario(options.scenario), options)
    const image = firmware === undefined ? builtInFirmware() : yield* loadFirmware(firmware, "snp")
    const { bytes, digest } = yield* fitting(() => {
      const launch = scenarioLaunch(image, scenario, seed, guestVmpl === undefined ? {} : { guestVmpl })
      return igvmImage(output, launch, BigInt(policy), owner)
    })
    yield* writeOutputBytes(output, bytes)
    yield* writeOut(`${Buffer.from(digest).toString("hex")}\n`)
  })
).pipe(Command.withDescription("Write firmware and SVSM as an IGVM file, and print its launch digest"))
