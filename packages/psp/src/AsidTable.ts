import type { Status } from "./Status.ts"

/** The processor's ASIDs and cores, as the AMD-SP sees them; every default is the smallest machine of the model. */
export interface AsidTableOptions {
  /** Highest ASID of encrypted guests. @spec APM2 CPUID 8000_001F ECX */
  readonly maxAsid?: number
  /** First ASID of guests without encrypted state; SEV-ES and SNP have those below. Default: all are for these. */
  readonly minSevAsid?: number
  readonly cores?: number
  /** Cores that share a cache (a CCX), in the order of their numbers. Default: 8, or more where that is too many CCXs. */
  readonly coresPerCcx?: number
  /** True: as initialisation leaves it, no cache is known to be clean. Default: the DF_FLUSH after it has been done. */
  readonly dirty?: boolean
}

/** What ACTIVATE asks about a guest. */
export interface Activation {
  readonly asid: number
  readonly isActive: boolean
  /** SEV-ES or SNP. */
  readonly encryptedState: boolean
}

const MAX_ASID = 1006
const CCXS_MAX = 32
const CORES_PER_CCX = 8

/**
 * What the AMD-SP keeps of each ASID, for the guests of both APIs: clean, allocated by ACTIVATE, in use once its guest
 * runs, and dirty when that guest has left: its lines may still be in caches and would be written with the next guest's
 * key. WBINVD on every core and then DF_FLUSH make dirty ASIDs clean; a guest that never ran leaves nothing behind.
 * Published firmware 1.55 takes a CCX for flushed when its first core is; here all its cores must be, as documented.
 * @spec SNP-ABI ACTIVATE, DECOMMISSION, DF_FLUSH
 */
export class AsidTable {
  readonly maxAsid: number
  readonly minSevAsid: number
  readonly #coresPerCcx: number
  /** Cores that have done WBINVD since one of their ASIDs was last given up. */
  readonly #wbinvdDone: Array<boolean>
  readonly #held = new Map<number, "allocated" | "in use">()
  /** Per dirty ASID the CCXs whose caches may hold lines, one bit each. */
  readonly #dirty = new Map<number, number>()
  readonly #allCcxs: number

  constructor(options: AsidTableOptions = {}) {
    const { maxAsid = MAX_ASID, cores = 1, dirty = false } = options
    const coresPerCcx = options.coresPerCcx ?? Math.max(CORES_PER_CCX, Math.ceil(cores / CCXS_MAX))
    const ccxs = Math.ceil(cores / coresPerCcx)
    if (!Number.isInteger(cores) || cores < 1 || ccxs > CCXS_MAX)
      throw new RangeError(`${cores} cores by ${coresPerCcx} are ${ccxs} CCXs, expected 1 to ${CCXS_MAX}`)
    this.maxAsid = maxAsid
    this.minSevAsid = options.minSevAsid ?? maxAsid + 1
    this.#coresPerCcx = coresPerCcx
    this.#wbinvdDone = new Array<boolean>(cores).fill(!dirty)
    this.#allCcxs = ccxs === CCXS_MAX ? 0xffff_ffff : 2 ** ccxs - 1
    if (dirty) for (let asid = 1; asid <= maxAsid; asid++) this.#dirty.set(asid, this.#allCcxs)
  }

  /** State of an ASID, for tests and explanations. */
  stateOf(asid: number): "clean" | "dirty" | "allocated" | "in use" {
    return this.#held.get(asid) ?? (this.#dirty.has(asid) ? "dirty" : "clean")
  }

  /** The status with which ACTIVATE refuses an ASID, or null. A range that does not fit the guest is found last. */
  refusal({ asid, isActive, encryptedState }: Activation): Status | null {
    if (!Number.isInteger(asid) || asid < 1 || asid > this.maxAsid) return "INVALID_ASID"
    if (this.#held.has(asid)) return "ASID_OWNED"
    if (isActive) return "ACTIVE"
    if (this.#dirty.has(asid)) return "DFFLUSH_REQUIRED"
    return encryptedState === asid < this.minSevAsid ? null : "INVALID_ASID"
  }

  /** ACTIVATE: the guest has the ASID's key; it is not run with it before it is launched. */
  allocate(asid: number, isRunning: boolean): void {
    this.#held.set(asid, isRunning ? "in use" : "allocated")
  }

  /** LAUNCH_FINISH: from now on VMRUN takes the ASID. */
  use(asid: number): void {
    this.#held.set(asid, "in use")
  }

  /** DEACTIVATE, or DECOMMISSION of an SNP guest. */
  release(asid: number): void {
    if (this.#held.get(asid) === "in use") {
      this.#dirty.set(asid, this.#allCcxs)
      this.#wbinvdDone.fill(false)
    }
    this.#held.delete(asid)
  }

  /** A core has executed WBINVD. */
  wbinvdDone(core: number): void {
    if (this.#wbinvdDone[core] === undefined) throw new RangeError(`core ${core} of ${this.#wbinvdDone.length}`)
    this.#wbinvdDone[core] = true
  }

  /** DF_FLUSH and SNP_DF_FLUSH: what has been written back leaves; a refusal keeps the CCXs that were done. */
  dfFlush(): Status {
    let done = this.#allCcxs
    for (const [core, isDone] of this.#wbinvdDone.entries())
      if (!isDone) done &= ~(1 << Math.floor(core / this.#coresPerCcx))
    for (const [asid, ccxs] of this.#dirty) {
      const left = ccxs & ~done
      if (left === 0) this.#dirty.delete(asid)
      else this.#dirty.set(asid, left)
    }
    return this.#wbinvdDone.every((isDone) => isDone) ? "SUCCESS" : "WBINVD_REQUIRED"
  }
}
