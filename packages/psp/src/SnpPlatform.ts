// @section 1.3, 1.7
import { FIRMWARE_TAG, type FrameRange, type Rmp } from "@vmpl-lab/rmp"
import type { Status } from "./Status.ts"

/** The RMP as SNP_INIT uses it. */
export type PlatformRmp = Pick<
  Rmp,
  "firmwareSet" | "isCovered" | "layout" | "stateOf" | "coveredPages" | "basePfn" | "entry"
>

/** A core as SNP_INIT finds it. */
export interface CoreState {
  /** SYSCFG.SecureNestedPagingEn. */
  readonly snpEnabled: boolean
  /** MSR VM_HSAVE_PA; not zero once a guest may have run. */
  readonly vmHsavePa: number
}

/** Memory that SNP_INIT does not leave to the hypervisor. */
export interface PlatformMemory {
  /** Pages without DRAM, TSEG, ASEG and what the hypervisor asked for: they become HV-Fixed. */
  readonly hvFixed: ReadonlyArray<FrameRange>
  /** Event logs and completion buffers of the IOMMUs: they become Firmware-IOMMU. */
  readonly iommu: ReadonlyArray<FrameRange>
}

/** GPA field of a Firmware-IOMMU page. */
const IOMMU_GFN = FIRMWARE_TAG.IOMMU + 1

/**
 * The platform's own life cycle: SNP_INIT_EX writes the RMP, SHUTDOWN_EX gives up what the IOMMUs had.
 * Limitations: the AMD-SP's barriers against cores and IOMMUs that write the RMP meanwhile are not modelled, nor are
 * INIT_RMP = 0, the VCEK and the TLB flush.
 * @spec SNP-ABI SNP_INIT_EX, SNP_SHUTDOWN_EX
 */
export class SnpPlatform {
  readonly #rmp: PlatformRmp
  readonly #memory: PlatformMemory
  #state: "UNINIT" | "INIT" = "UNINIT"

  constructor(rmp: PlatformRmp, memory: PlatformMemory = { hvFixed: [], iommu: [] }) {
    this.#rmp = rmp
    this.#memory = memory
  }

  get state(): "UNINIT" | "INIT" {
    return this.#state
  }

  /**
   * SNP_INIT_EX with INIT_RMP: the RMP's own pages become Firmware, so no write of a host reaches it from then on.
   * @spec-silent that SNP missing on a core gives INVALID_CONFIG, as a VM_HSAVE_PA that is not zero does
   */
  snpInit(cores: ReadonlyArray<CoreState>): Status {
    if (this.#state !== "UNINIT") return "INVALID_PLATFORM_STATE"
    if (!cores.every(({ snpEnabled, vmHsavePa }) => snpEnabled && vmHsavePa === 0)) return "INVALID_CONFIG"
    this.#write([{ first: this.#rmp.basePfn, count: this.#rmp.coveredPages }], CLEAR)
    this.#write(this.#memory.hvFixed, { ...CLEAR, immutable: true })
    this.#write(this.#rmp.layout.ownFrames, { ...CLEAR, assigned: true, immutable: true })
    this.#write(this.#memory.iommu, { ...CLEAR, assigned: true, immutable: true, gfn: IOMMU_GFN })
    this.#state = "INIT"
    return "SUCCESS"
  }

  /** SNP_SHUTDOWN_EX; with `iommuSnpShutdown` the pages of the IOMMUs become Reclaim. */
  shutdownEx(iommuSnpShutdown: boolean): Status {
    if (this.#state === "UNINIT") return "SUCCESS"
    this.#state = "UNINIT"
    if (iommuSnpShutdown) this.#write(this.#memory.iommu, { immutable: false, gfn: 0 })
    return "SUCCESS"
  }

  #write(ranges: ReadonlyArray<FrameRange>, fields: Parameters<PlatformRmp["firmwareSet"]>[1]): void {
    for (const { first, count } of ranges)
      for (let pfn = first; pfn < first + count; pfn++) {
        if (!this.#rmp.isCovered(pfn)) continue
        // A page that is blank already is left alone: most of memory, and no row is taken for it.
        if (fields !== CLEAR || !isBlank(this.#rmp, pfn)) this.#rmp.firmwareSet(pfn, fields)
      }
  }
}

const CLEAR = {
  assigned: false,
  size: 0,
  immutable: false,
  gfn: 0,
  asid: 0,
  validated: false,
  vmsa: false,
  perms: [0, 0, 0, 0]
} as const

const isBlank = (rmp: PlatformRmp, pfn: number): boolean => {
  const { assigned, size, immutable, gfn, asid, validated, vmsa, perms } = rmp.entry(pfn)
  return (
    !assigned &&
    size === 0 &&
    !immutable &&
    gfn === 0 &&
    asid === 0 &&
    !validated &&
    !vmsa &&
    perms.every((m) => m === 0)
  )
}
