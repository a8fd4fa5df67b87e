import { hkdfSync, type KeyObject } from "node:crypto"
import type { ReportVersion } from "./AttestationReport.ts"
import { publicKeyOf, scalarFromExtraBits, signatureBytes, signP384 } from "./EcdsaP384.ts"
import { firmwareKdf } from "./FirmwareKdf.ts"
import { isSinceTurin, TCB, TCB_TURIN, type TcbVersion, tcbBytes, tcbOf } from "./Tcb.ts"

/** Version of firmware, as reports name it. */
export interface FirmwareVersion {
  readonly major: number
  readonly minor: number
  readonly build: number
}

/** What a platform says of itself in reports; every default is that of an unconfigured Genoa with firmware 1.55.25. */
export interface PlatformIdentityOptions {
  /** TCB of the firmware that runs. */
  readonly currentTcb?: TcbVersion
  /** TCB that a rollback cannot go below, and the highest that keys may be asked for. Default: the current one. */
  readonly committedTcb?: TcbVersion
  /** TCB that SNP_CONFIG set for reports, whose VCEK signs them. Default: the committed one. */
  readonly reportedTcb?: TcbVersion
  readonly current?: FirmwareVersion
  readonly committed?: FirmwareVersion
  /** Transparent SME is on. */
  readonly tsmeEnabled?: boolean
  /** SNP_CONFIG: the VCEK neither signs reports nor derives keys. */
  readonly maskChipKey?: boolean
  /** SNP_CONFIG: reports have no chip id. */
  readonly maskChipId?: boolean
  /** VLEK_LOAD has been done: a key of the cloud's operator, which is then preferred to the VCEK. */
  readonly vlekLoaded?: boolean
  /** Which version of the report the firmware writes. Default: 2, that of firmware 1.55. */
  readonly reportVersion?: ReportVersion
  /** CPUID Fn1 EAX, for reports from version 3 on. Default: Genoa. */
  readonly fms?: number
  /** The mitigations that are in place, for reports of version 5. */
  readonly mitigationVector?: bigint
  /** Memory has error correction. */
  readonly eccEnabled?: boolean
  /** Running Average Power Limit is off. */
  readonly raplDisabled?: boolean
  readonly ciphertextHiding?: boolean
  /** Trusted I/O, for reports of version 5. */
  readonly tioEnabled?: boolean
  /** The memory controllers were found without aliases, for reports from version 3 on. */
  readonly aliasCheckComplete?: boolean
}

/** The platform's two keys for reports, versioned by TCB. */
export type EndorsementKey = "VCEK" | "VLEK"

/** Family, model and stepping of Genoa as CPUID Fn1 EAX. */
export const FMS_GENOA = 0xa10f10
const TCB_OF_MODEL: TcbVersion = { bootLoader: 4, tee: 0, snp: 22, microcode: 72 }
const VERSION_OF_MODEL: FirmwareVersion = { major: 1, minor: 55, build: 25 }
const ROOT_SIZE = 48
const CHIP_ID_SIZE = 64
const CHIP_ID_SIZE_TURIN = 8
/** 384 bits and 64 more, so that the remainder is evenly spread. */
const EXTRA_BITS_SIZE = 56

/** Labels under which the firmware derives the private keys. */
const LABELS = {
  VCEK: "sev-versioned-chip-endorsement-key",
  VLEK: "sev-versioned-loaded-attestation-key"
} as const

const NO_CONTEXT = new Uint8Array(0)

/**
 * A chip, its firmware's versions and its keys. Roots come from the seed, where a real chip has fuses.
 * Certificates of the keys are made above the seam. Limitation: a real chip hashes its seed once for each version that a component lacks, so
 * that a newer firmware knows the older one's root and not the other way round; here roots of different TCBs are
 * unrelated, and the check of the TCB in a request says the same.
 * @spec SNP-ABI "attestation", VLEK_LOAD, SNP_CONFIG
 */
export class PlatformIdentity {
  readonly currentTcb: TcbVersion
  readonly current: FirmwareVersion
  readonly tsmeEnabled: boolean
  readonly reportVersion: ReportVersion
  readonly fms: number
  readonly mitigationVector: bigint
  readonly aliasCheckComplete: boolean
  readonly eccEnabled: boolean
  readonly raplDisabled: boolean
  readonly ciphertextHiding: boolean
  readonly tioEnabled: boolean
  readonly #seed: number
  #committedTcb: TcbVersion
  #committed: FirmwareVersion
  /** What SNP_CONFIG has set; null: reports name the committed TCB. */
  #configTcb: TcbVersion | null
  #maskChipKey: boolean
  #maskChipId: boolean
  #vlekLoaded: boolean
  /** Root of the VLEK that VLEK_LOAD has brought; null: one that comes from the seed. */
  #vlekRoot: Uint8Array | null = null
  /** Private keys that were derived, for as long as their roots are the same. */
  readonly #scalars = new Map<EndorsementKey, bigint>()

  constructor(seed: number, options: PlatformIdentityOptions = {}) {
    this.#seed = seed
    this.currentTcb = options.currentTcb ?? TCB_OF_MODEL
    this.#committedTcb = options.committedTcb ?? this.currentTcb
    this.#configTcb = options.reportedTcb ?? null
    this.current = options.current ?? VERSION_OF_MODEL
    this.#committed = options.committed ?? this.current
    this.tsmeEnabled = options.tsmeEnabled ?? false
    this.#maskChipKey = options.maskChipKey ?? false
    this.#maskChipId = options.maskChipId ?? false
    this.#vlekLoaded = options.vlekLoaded ?? false
    this.reportVersion = options.reportVersion ?? 2
    this.fms = options.fms ?? FMS_GENOA
    this.mitigationVector = options.mitigationVector ?? 0n
    this.aliasCheckComplete = options.aliasCheckComplete ?? false
    this.eccEnabled = options.eccEnabled ?? false
    this.raplDisabled = options.raplDisabled ?? false
    this.ciphertextHiding = options.ciphertextHiding ?? false
    this.tioEnabled = options.tioEnabled ?? false
  }

  get committedTcb(): TcbVersion {
    return this.#committedTcb
  }

  get reportedTcb(): TcbVersion {
    return this.#configTcb ?? this.#committedTcb
  }

  get committed(): FirmwareVersion {
    return this.#committed
  }

  get maskChipKey(): boolean {
    return this.#maskChipKey
  }

  get maskChipId(): boolean {
    return this.#maskChipId
  }

  get vlekLoaded(): boolean {
    return this.#vlekLoaded
  }

  /** A TCB_VERSION in the form of this processor, 8 bytes. */
  tcbBytes(tcb: TcbVersion): Uint8Array {
    return tcbBytes(tcb, this.#tcbLayout)
  }

  /** The TCB that 8 bytes stand for on this processor. */
  tcbOf(bytes: Uint8Array): TcbVersion {
    return tcbOf(bytes, this.#tcbLayout)
  }

  get #tcbLayout() {
    return isSinceTurin(this.fms) ? TCB_TURIN : TCB
  }

  /** 64 bytes that no other chip has; from Turin on all but the first 8 are zero. */
  get chipId(): Uint8Array {
    const id = this.#derive("chip id", NO_CONTEXT, CHIP_ID_SIZE)
    return isSinceTurin(this.fms) ? id.fill(0, CHIP_ID_SIZE_TURIN) : id
  }

  /** SNP_CONFIG, after its checks. */
  configure(reportedTcb: TcbVersion, masks: { readonly chipId: boolean; readonly chipKey: boolean }): void {
    this.#configTcb = reportedTcb
    this.#maskChipId = masks.chipId
    this.#maskChipKey = masks.chipKey
    this.#scalars.clear()
  }

  /** SNP_COMMIT: from now on nothing older than what runs can be loaded. */
  commit(): void {
    this.#committedTcb = this.currentTcb
    this.#committed = this.current
    this.#scalars.clear()
  }

  /** VLEK_LOAD, after its checks. `root` has 48 bytes. */
  loadVlek(root: Uint8Array): void {
    this.#vlekRoot = root
    this.#vlekLoaded = true
    this.#scalars.clear()
  }

  /** Secret of a TCB version: the root of derived keys and of the private key, 48 bytes. */
  root(key: EndorsementKey, tcb: Uint8Array): Uint8Array {
    if (key === "VLEK" && this.#vlekRoot !== null) return this.#vlekRoot
    return this.#derive(`root of ${key}`, tcb, ROOT_SIZE)
  }

  /** What the holder of the certificate verifies reports with. */
  publicKey(key: EndorsementKey): KeyObject {
    return publicKeyOf(this.#scalarOf(key))
  }

  /** AMD's signature, 512 bytes, by the key of the reported TCB. */
  sign(key: EndorsementKey, message: Uint8Array): Uint8Array {
    return signatureBytes(signP384(this.#scalarOf(key), message))
  }

  #scalarOf(key: EndorsementKey): bigint {
    let scalar = this.#scalars.get(key)
    if (scalar === undefined) {
      const root = this.root(key, this.tcbBytes(this.reportedTcb))
      scalar = scalarFromExtraBits(firmwareKdf(root, LABELS[key], NO_CONTEXT, EXTRA_BITS_SIZE))
      this.#scalars.set(key, scalar)
    }
    return scalar
  }

  #derive(label: string, context: Uint8Array, size: number): Uint8Array {
    const info = Buffer.concat([Buffer.from(`platform ${label} `), context])
    return new Uint8Array(hkdfSync("sha256", `seed ${this.#seed}`, "vmpl-lab psp", info, size))
  }
}
