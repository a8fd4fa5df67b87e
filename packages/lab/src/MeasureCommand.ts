import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { fitting, loadFirmware, loadIgvm } from "./FirmwareFile.ts"
import { hexFlag, igvmFlag, numberFlag, optional, switchFlag } from "./Flags.ts"
import { readInputFile } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeOut } from "./Output.ts"

/** Kernel and initrd are read whole; more than this is a mistake. */
const BOOT_FILE_BYTES_MAX = 1024 * 1024 * 1024

const file = (name: string, what: string) =>
  optional(Flag.String(name)).pipe(Flag.withMetavar("FILE"), Flag.withDescription(what))

// Names, values and defaults are those of sev-snp-measure, so that a command line can be carried over.
const flags = {
  firmware: file("firmware", "OVMF image"),
  igvm: igvmFlag,
  nativeZero: switchFlag("native-zero").pipe(
    Flag.withDescription("With --igvm: pages without contents are ZERO pages, as QEMU launches them")
  ),
  onePageInserts: switchFlag("one-page-inserts").pipe(
    Flag.withDescription("With --igvm: a PARAMETER_INSERT counts as one page, as COCONUT's igvmmeasure has it")
  ),
  checkKvm: switchFlag("check-kvm").pipe(
    Flag.withDescription("With --igvm: refuse what KVM cannot launch: one VMSA, last, at its address")
  ),
  mode: Flag.Literals("mode", ["snp", "seves", "sev"]).pipe(
    Flag.withDescription("What kind of guest is launched"),
    Flag.withDefault("snp" as const)
  ),
  vcpus: numberFlag("vcpus", 1, 512).pipe(Flag.withDescription("Guest vCPUs"), Flag.withDefault(1)),
  vcpuType: optional(Flag.String("vcpu-type")).pipe(
    Flag.withMetavar("TYPE"),
    Flag.withDescription("QEMU's CPU model, EPYC-v4 unless given")
  ),
  vcpuSig: optional(hexFlag("vcpu-sig", 0xffff_ffff)).pipe(
    Flag.withDescription("CPUID signature instead of a CPU model")
  ),
  vmmType: Flag.Literals("vmm-type", ["QEMU", "ec2", "gce"]).pipe(
    Flag.withDescription("Whose rules apply"),
    Flag.withDefault("QEMU" as const)
  ),
  guestFeatures: hexFlag("guest-features", Number.MAX_SAFE_INTEGER).pipe(
    Flag.withDescription("SEV_FEATURES of the vCPUs"),
    Flag.withDefault(0x1)
  ),
  kernel: file("kernel", "Kernel that is booted directly"),
  initrd: file("initrd", "Initial RAM disk, with --kernel"),
  append: optional(Flag.String("append")).pipe(
    Flag.withMetavar("TEXT"),
    Flag.withDescription("Kernel command line, with --kernel")
  ),
  outputFormat: Flag.Literals("output-format", ["hex", "base64"]).pipe(
    Flag.withDescription("How the digest is written"),
    Flag.withDefault("hex" as const)
  )
}

const bad = (line: string) => Effect.fail(new InputInvalid({ line: oneLine(line) }))
const loadHypervisor = Effect.promise(() => import("@vmpl-lab/hypervisor"))

/** The CPUID signature that the two options stand for. */
const signatureOf = Effect.fn("signatureOf")(function* (type: string | undefined, signature: number | undefined) {
  const { VCPU_SIGNATURE, VCPU_TYPES } = yield* loadHypervisor
  if (signature !== undefined) {
    if (type !== undefined) return yield* bad("--vcpu-sig: given with --vcpu-type, expected one of the two")
    return signature
  }
  const known = VCPU_TYPES.find((name) => name === (type ?? "EPYC-v4"))
  if (known !== undefined) return VCPU_SIGNATURE[known]
  return yield* bad(`--vcpu-type: ${JSON.stringify(type)} unknown, expected one of ${VCPU_TYPES.join(", ")}`)
})

type BootFiles = { readonly [K in "kernel" | "initrd" | "append"]: string | undefined }

/** The table of kernel hashes, or null without a kernel. */
const hashesOf = Effect.fn("hashesOf")(function* ({ kernel, initrd, append }: BootFiles) {
  if (kernel === undefined) {
    const lone = initrd !== undefined ? "--initrd" : append !== undefined ? "--append" : undefined
    return lone === undefined ? null : yield* bad(`${lone}: given without --kernel, expected both`)
  }
  const { kernelHashTable } = yield* loadHypervisor
  return kernelHashTable({
    kernel: yield* readInputFile(kernel, BOOT_FILE_BYTES_MAX),
    initrd: initrd === undefined ? null : yield* readInputFile(initrd, BOOT_FILE_BYTES_MAX),
    append
  })
})

const IGVM_OPTIONS = { nativeZero: "native-zero", onePageInserts: "one-page-inserts", checkKvm: "check-kvm" } as const
type IgvmOptions = { readonly [K in keyof typeof IGVM_OPTIONS]: boolean }

/** The digest of an IGVM file, which an ID block in it must expect too. */
const igvmDigest = Effect.fn("igvmDigest")(function* (path: string, { checkKvm, ...choices }: IgvmOptions) {
  const { checkForKvm, igvmPlan, measureSnp } = yield* loadHypervisor
  const file = yield* loadIgvm(path)
  const { pages, idBlock } = yield* fitting(() => igvmPlan(file, choices))
  if (checkKvm) yield* fitting(() => checkForKvm(path, { pages }))
  const digest = measureSnp(pages)
  const expected = idBlock?.block.subarray(0, digest.length)
  if (expected !== undefined && Buffer.compare(expected, digest) !== 0) {
    const [said, is] = [expected, digest].map((one) => Buffer.from(one).toString("hex"))
    return yield* bad(`${path}: the ID block is for digest ${said}, expected ${is} as the directives give`)
  }
  return digest
})

/** `vmpl-lab measure`: the launch digest that a guest owner should expect, and nothing else on standard output. */
export const measure = Command.make(
  "measure",
  flags,
  Effect.fn("measure")(function* ({ mode, vcpus, vmmType, guestFeatures: sevFeatures, outputFormat, ...options }) {
    if (options.igvm !== undefined) {
      if (options.firmware !== undefined) return yield* bad("--igvm: given with --firmware, expected one of the two")
      if (mode !== "snp") return yield* bad(`--igvm: given with --mode ${mode}, expected snp`)
      const boot = (["kernel", "initrd", "append"] as const).find((name) => options[name] !== undefined)
      if (boot !== undefined) return yield* bad(`--${boot}: given with --igvm, expected --firmware`)
      const digest = yield* igvmDigest(options.igvm, options)
      return yield* writeOut(`${Buffer.from(digest).toString(outputFormat)}\n`)
    }
    for (const [name, option] of Object.entries(IGVM_OPTIONS)) {
      if (options[name as keyof IgvmOptions]) return yield* bad(`--${option}: given without --igvm, expected both`)
    }
    if (options.firmware === undefined) return yield* bad("--firmware: missing, expected this option or --igvm")
    const { launchPlan, measureSev, measureSevEs, measureSnp } = yield* loadHypervisor
    const signature = yield* signatureOf(options.vcpuType, options.vcpuSig)
    const kernelHashes = yield* hashesOf(options)
    const image = yield* loadFirmware(options.firmware, mode === "snp" ? "snp" : "sev")
    // The image may lack what the options ask of it: a page for kernel hashes, an entry point for APs.
    const digest = yield* fitting(() => {
      if (mode === "sev") return measureSev({ image, kernelHashes })
      if (mode === "seves") return measureSevEs({ image, kernelHashes, vmmType, vcpus, signature })
      return measureSnp(launchPlan({ image, vmmType, vcpus, signature, sevFeatures, kernelHashes }))
    })
    yield* writeOut(`${Buffer.from(digest).toString(outputFormat)}\n`)
  })
).pipe(Command.withDescription("Compute the launch digest of a firmware image or IGVM file"))
