import { hkdfSync, type KeyObject } from "node:crypto"
import type { ReportVersion } from "./AttestationReport.ts"
import { publicKeyOf, scalarFromExtraBits, signatureBytes, signP384 } from "./EcdsaP384.ts"
import { firmwareKdf } from "./FirmwareKdf.ts"
import { type TcbVersion, tcbBytes } from "./Tcb.ts"

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
  readonly committedTcb: TcbVersion
  readonly reportedTcb: TcbVersion
  readonly current: FirmwareVersion
  readonly committed: FirmwareVersion
  readonly tsmeEnabled: boolean
  readonly maskChipKey: boolean
  readonly maskChipId: boolean
  readonly vlekLoaded: boolean
  readonly reportVersion: ReportVersion
  readonly fms: number
  readonly mitigationVector: bigint
  readonly aliasCheckComplete: boolean
  readonly #seed: number
  readonly #scalars = new Map<EndorsementKey, bigint>()

  constructor(seed: number, options: PlatformIdentityOptions = {}) {
    this.#seed = seed
    this.currentTcb = options.currentTcb ?? TCB_OF_MODEL
    this.committedTcb = options.committedTcb ?? this.currentTcb
    this.reportedTcb = options.reportedTcb ?? this.committedTcb
    this.current = options.current ?? VERSION_OF_MODEL
    this.committed = options.committed ?? this.current
    this.tsmeEnabled = options.tsmeEnabled ?? false
    this.maskChipKey = options.maskChipKey ?? false
    this.maskChipId = options.maskChipId ?? false
    this.vlekLoaded = options.vlekLoaded ?? false
    this.reportVersion = options.reportVersion ?? 2
    this.fms = options.fms ?? FMS_GENOA
    this.mitigationVector = options.mitigationVector ?? 0n
    this.aliasCheckComplete = options.aliasCheckComplete ?? false
  }

  /** 64 bytes that no other chip has. */
  get chipId(): Uint8Array {
    return this.#derive("chip id", NO_CONTEXT, CHIP_ID_SIZE)
  }

  /** Secret of a TCB version: the root of derived keys and of the private key, 48 bytes. */
  root(key: EndorsementKey, tcb: Uint8Array): Uint8Array {
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
      const root = this.root(key, tcbBytes(this.reportedTcb))
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
