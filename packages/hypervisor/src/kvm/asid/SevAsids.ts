import type { Status } from "@vmpl-lab/psp"
import type { SevCapabilities } from "@vmpl-lab/sev-es"
import { ERRNO } from "../Errno.ts"

/** KVM_X86_SEV_VM, KVM_X86_SEV_ES_VM and KVM_X86_SNP_VM. */
export type SevKind = "sev" | "sev-es" | "snp"

/** ASIDs from `min` to `max`; none where `min` is above `max`. */
export interface AsidRange {
  readonly min: number
  readonly max: number
}

/** What a freed ASID needs before another guest may have it. */
export interface AsidFlush {
  /** WBINVD on every CPU of the host. */
  readonly wbinvdOnAllCpus: () => void
  /** SNP_DF_FLUSH, or DF_FLUSH where SNP is off. */
  readonly dfFlush: () => Status
}

export interface SevAsidsOptions {
  readonly capabilities: Pick<SevCapabilities, "guests" | "minSevNoEsAsid">
  /** Parameter of kvm-amd: SNP guests get ASIDs 1 to this one, which hides their ciphertext, and SEV-ES the rest. */
  readonly ciphertextHidingAsids?: number
  readonly flush: AsidFlush
  /** sev_asid_free tells who else knows of ASIDs. */
  readonly freed?: (asid: number) => void
}

/**
 * ASIDs of encrypted guests: one for a guest with all its vCPUs and VMPLs, for as long as any VM object of it lives. A
 * freed one may still have dirty cache lines under its old key, so it waits on the reclaim map; when none is left, one
 * flush makes all of them usable again.
 * @spec Linux arch/x86/kvm/svm/sev.c sev_asid_new, sev_asid_free, sev_flush_asids, sev_hardware_setup
 * @spec APM2 CPUID 8000_001F ECX, EDX
 */
export class SevAsids {
  readonly #ranges: { readonly [kind in SevKind]: AsidRange }
  readonly #flush: AsidFlush
  readonly #freed: (asid: number) => void
  /** VM objects that use an ASID. */
  readonly #references = new Map<number, number>()
  readonly #reclaim = new Set<number>()

  constructor({ capabilities, ciphertextHidingAsids, flush, freed = () => {} }: SevAsidsOptions) {
    const { guests: maxAsid, minSevNoEsAsid: minSevAsid } = capabilities
    const maxEsAsid = minSevAsid - 1
    const split = ciphertextHidingAsids ? Math.min(ciphertextHidingAsids, maxEsAsid) : 0
    this.#ranges = {
      sev: { min: minSevAsid, max: maxAsid },
      "sev-es": { min: split + 1, max: maxEsAsid },
      snp: { min: 1, max: split > 0 ? split : maxEsAsid }
    }
    this.#flush = flush
    this.#freed = freed
  }

  range(kind: SevKind): AsidRange {
    return this.#ranges[kind]
  }

  /** VM objects that use an ASID: 0 when it is free or waits to be reclaimed. */
  references(asid: number): number {
    return this.#references.get(asid) ?? 0
  }

  /** Whether an ASID was freed and not flushed since. */
  isReclaimable(asid: number): boolean {
    return this.#reclaim.has(asid)
  }

  /**
   * sev_asid_new: the lowest free ASID for a guest of this kind.
   * @returns the ASID, or an errno: ENOTTY where the platform has none for the kind, EBUSY where all are taken
   */
  allocate(kind: SevKind): number {
    const range = this.#ranges[kind]
    if (range.min > range.max) return ERRNO.ENOTTY
    let asid = this.#firstFree(range)
    if (asid === null && this.#recycle(range)) asid = this.#firstFree(range)
    if (asid === null) return ERRNO.EBUSY
    this.#references.set(asid, 1)
    return asid
  }

  /** KVM_CAP_VM_COPY_ENC_CONTEXT_FROM: one more VM object runs the guest that has this ASID. */
  share(asid: number): void {
    this.#references.set(asid, this.#used(asid) + 1)
  }

  /** A VM object goes away. With the last one of its guest the ASID goes to the reclaim map. */
  free(asid: number): void {
    const references = this.#used(asid) - 1
    if (references > 0) {
      this.#references.set(asid, references)
      return
    }
    this.#references.delete(asid)
    this.#reclaim.add(asid)
    this.#freed(asid)
  }

  #firstFree({ min, max }: AsidRange): number | null {
    for (let asid = min; asid <= max; asid++) if (!this.#references.has(asid) && !this.#reclaim.has(asid)) return asid
    return null
  }

  /** __sev_recycle_asids: flushes only for an ASID of the range, but then every freed one is clean. */
  #recycle({ min, max }: AsidRange): boolean {
    if (![...this.#reclaim].some((asid) => asid >= min && asid <= max)) return false
    this.#flush.wbinvdOnAllCpus()
    if (this.#flush.dfFlush() !== "SUCCESS") return false
    this.#reclaim.clear()
    return true
  }

  #used(asid: number): number {
    const references = this.references(asid)
    if (references === 0) throw new Error(`SevAsids: no guest has ASID ${asid}`)
    return references
  }
}
