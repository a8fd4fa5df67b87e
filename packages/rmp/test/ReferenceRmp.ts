/**
 * The RMP once more, plainly: a Map of entry objects, every question about a region answered by walking its 512 pages,
 * results in words. Written from the manuals' pseudocode alone; the package is compared with it.
 */
export interface Entry {
  assigned: boolean
  size: "4K" | "2M"
  immutable: boolean
  gfn: number
  asid: number
  validated: boolean
  vmsa: boolean
  inUse: boolean
  perms: number[]
}

export type Size = "4K" | "2M"
export type Kind = "read" | "write" | "fetch" | "pt-read" | "pt-write"

const empty = (): Entry => ({
  assigned: false,
  size: "4K",
  immutable: false,
  gfn: 0,
  asid: 0,
  validated: false,
  vmsa: false,
  inUse: false,
  perms: [0, 0, 0, 0]
})

export class ReferenceRmp {
  readonly first: number
  readonly pages: number
  readonly alternatives: ReadonlySet<string>
  readonly pagesPer2M: number
  readonly entries = new Map<number, Entry>()

  constructor(first: number, pages: number, alternatives: ReadonlySet<string>, pagesPer2M = 512) {
    this.pagesPer2M = pagesPer2M
    this.first = first
    this.pages = pages
    this.alternatives = alternatives
  }

  covered(pfn: number): boolean {
    return pfn >= this.first && pfn < this.first + this.pages
  }

  at(pfn: number): Entry {
    return this.entries.get(pfn) ?? empty()
  }

  region(pfn: number): number[] {
    const start = pfn - (pfn % this.pagesPer2M)
    return Array.from({ length: this.pagesPer2M }, (_, page) => start + page)
  }

  /** The entry that guest instructions see, and the GPA it gives to this page. */
  seen(pfn: number): { at: number; entry: Entry; gfn: number } {
    const head = pfn - (pfn % this.pagesPer2M)
    const large = this.at(head)
    if (large.assigned && large.size === "2M") return { at: head, entry: large, gfn: large.gfn + (pfn - head) }
    const entry = this.at(pfn)
    return { at: pfn, entry, gfn: entry.gfn }
  }

  private busy(pfn: number, size: Size): boolean {
    return size === "2M" ? this.region(pfn).some((page) => this.at(page).inUse) : this.at(pfn).inUse
  }

  rmpupdate(pfn: number, assigned: boolean, size: Size, immutable: boolean, gfn: number, asid: number): string {
    const busyFirst = this.alternatives.has("U8")
    if (busyFirst && this.covered(pfn) && this.busy(pfn, size)) return "FAIL_INUSE"
    if (size === "2M" && pfn % this.pagesPer2M !== 0) return "FAIL_INPUT"
    if (!assigned && (immutable || asid !== 0)) return "FAIL_INPUT"
    if (!this.covered(pfn)) return "FAIL_INPUT"
    const old = this.at(pfn)
    if (old.immutable) return "FAIL_PERMISSION"
    const head = this.at(pfn - (pfn % this.pagesPer2M))
    const insideLarge = head.assigned && head.size === "2M"
    if (size === "4K") {
      if (insideLarge) return "FAIL_OVERLAP"
    } else {
      if (!insideLarge && this.region(pfn).some((page) => this.at(page).assigned)) return "FAIL_OVERLAP"
      const fixed = this.region(pfn).some((page) => page !== pfn && this.at(page).immutable)
      if (fixed && !this.alternatives.has("U17")) return "FAIL_PERMISSION"
    }
    if (!busyFirst && this.busy(pfn, size)) return "FAIL_INUSE"

    if (size === "2M")
      for (const page of this.region(pfn)) if (page !== pfn) this.entries.set(page, { ...empty(), assigned })
    const same = old.asid === asid && old.gfn === gfn && old.size === size && old.assigned === assigned && asid !== 0
    const entry: Entry = { ...old, assigned, size: assigned ? size : "4K", immutable, gfn, asid }
    if (!same || this.alternatives.has("U1")) {
      entry.validated = false
      entry.vmsa = false
      entry.perms = [this.alternatives.has("U7") ? 0x1f : 0xf, 0, 0, 0]
    }
    this.entries.set(pfn, entry)
    return "SUCCESS"
  }

  psmash(pfn: number): string {
    if (pfn % this.pagesPer2M !== 0 || !this.covered(pfn)) return "FAIL_INPUT"
    const old = this.at(pfn)
    if (old.immutable) return "FAIL_PERMISSION"
    if (!old.assigned || old.size !== "2M") return this.alternatives.has("U4") ? "FAIL_OVERLAP" : "FAIL_BADADDR"
    if (this.busy(pfn, "2M")) return "FAIL_INUSE"
    for (const page of this.region(pfn))
      this.entries.set(page, { ...old, perms: [...old.perms], size: "4K", gfn: old.gfn + (page - pfn) })
    return "SUCCESS"
  }

  rmpread(pfn: number): string {
    if (!this.covered(pfn)) return "FAIL_INPUT"
    const { assigned, size, immutable, gfn, asid } = this.at(pfn)
    const others = this.region(pfn).some((page) => page !== pfn && this.at(page).assigned)
    const counted = size === "4K" || !assigned || this.alternatives.has("U18")
    const status = pfn % this.pagesPer2M === 0 && others && counted
    return `SUCCESS ${assigned} ${size} ${immutable} ${gfn} ${asid} ${status}`
  }

  /** The entry of a guest's page, or a fault in words. */
  private translate(asid: number, gfn: number, pfn: number): { at: number; entry: Entry } | string {
    if (gfn < 0) return this.alternatives.has("U5") ? "#GP" : "#PF"
    if (pfn < 0) return "#NPF"
    if (!this.covered(pfn)) return "#NPF RMP"
    const seen = this.seen(pfn)
    const { entry } = seen
    if (!entry.assigned || entry.immutable || entry.asid !== asid || seen.gfn !== gfn) return "#NPF RMP"
    return seen
  }

  /** Page-size matrix of PVALIDATE and RMPADJUST: nested size, RMP size, operand size. */
  private sizes(npt: Size, rmp: Size, operand: Size): string {
    const corner = this.alternatives.has("U10") ? "FAIL_SIZEMISMATCH" : "#NPF RMP"
    const matrix: Record<string, string> = {
      "4K 4K 4K": "ok",
      "4K 2M 4K": "#NPF RMP SIZEM",
      "2M 2M 4K": "#NPF RMP SIZEM",
      "2M 4K 4K": this.alternatives.has("U15") ? "#NPF RMP SIZEM" : "#NPF RMP",
      "4K 4K 2M": "FAIL_SIZEMISMATCH",
      "4K 2M 2M": corner,
      "2M 2M 2M": "ok",
      "2M 4K 2M": corner
    }
    return matrix[`${npt} ${rmp} ${operand}`] as string
  }

  pvalidate(asid: number, vmpl: number, gfn: number, pfn: number, npt: Size, size: Size, value: boolean): string {
    if (vmpl !== 0) return this.alternatives.has("U3") ? "#UD" : "#GP"
    if (size === "2M" && gfn >= 0 && gfn % this.pagesPer2M !== 0) return "FAIL_INPUT"
    const found = this.translate(asid, gfn, pfn)
    if (typeof found === "string") return found
    const { entry } = found
    const sizes = this.sizes(npt, entry.size, size)
    if (sizes !== "ok") return sizes
    if (!this.alternatives.has("U16") && this.busy(found.at, entry.size)) return "FAIL_INUSE"
    const carry = entry.validated === value ? " CF" : ""
    this.entries.set(found.at, { ...entry, validated: value })
    return `SUCCESS${carry}`
  }

  rmpadjust(
    asid: number,
    vmpl: number,
    gfn: number,
    pfn: number,
    npt: Size,
    size: Size,
    target: number,
    mask: number,
    vmsa: boolean
  ): string {
    if (size === "2M" && gfn >= 0 && gfn % this.pagesPer2M !== 0) return "FAIL_INPUT"
    if (target > 3 || mask > 0x1f) return "FAIL_INPUT"
    const late = this.alternatives.has("U13")
    if (!late && target <= vmpl) return "FAIL_PERMISSION"
    const found = this.translate(asid, gfn, pfn)
    if (typeof found === "string") return found
    const { entry } = found
    const sizes = this.sizes(npt, entry.size, size)
    if (sizes.startsWith("#")) return sizes
    if (!entry.validated) return "#VC"
    if (sizes !== "ok") return sizes
    if (late && target <= vmpl) return "FAIL_PERMISSION"
    const own = entry.perms[vmpl] as number
    for (let bit = 1; bit <= 0x10; bit *= 2) if ((mask & bit) !== 0 && (own & bit) === 0) return "FAIL_PERMISSION"
    if (this.busy(found.at, entry.size)) return this.alternatives.has("U2") ? "FAIL_PERMISSION" : "FAIL_INUSE"
    const perms = entry.perms.map((old, level) => (level === target ? mask : old))
    this.entries.set(found.at, { ...entry, perms, vmsa: vmpl === 0 ? vmsa : entry.vmsa })
    return "SUCCESS"
  }

  rmpquery(asid: number, vmpl: number, gfn: number, pfn: number, npt: Size, target: number): string {
    if (target > 3) return "FAIL_INPUT"
    if (target < vmpl || (target === vmpl && !this.alternatives.has("U6"))) return "FAIL_PERMISSION"
    const found = this.translate(asid, gfn, pfn)
    if (typeof found === "string") return found
    const { entry } = found
    if (entry.size !== npt) return "#NPF RMP"
    if (!entry.validated) return "#VC"
    return `SUCCESS ${entry.perms[target]} ${entry.vmsa} ${entry.size}`
  }

  private hypervisorOwned(pfn: number, size: Size): boolean {
    const touched = size === "2M" ? this.region(pfn) : [pfn]
    return touched.every((page) => !this.covered(page) || !this.at(page).assigned)
  }

  host(pfn: number, kind: Kind, size: Size): string {
    if (kind === "read" || kind === "fetch") return "ok"
    return this.hypervisorOwned(pfn, size) ? "ok" : "#PF RMP"
  }

  nonSnp(pfn: number, kind: Kind, size: Size): string {
    if (kind === "read" || kind === "fetch") return "ok"
    return this.hypervisorOwned(pfn, size) ? "ok" : "#NPF RMP"
  }

  guest(
    asid: number,
    vmpl: number,
    cpl: number,
    kind: Kind,
    cbit: boolean,
    gfn: number,
    pfn: number,
    npt: Size
  ): string {
    if (pfn < 0) return "#NPF"
    const isData = kind === "read" || kind === "write"
    if (isData && !cbit) return this.nonSnp(pfn, kind, npt)
    if (!this.covered(pfn)) return "#NPF RMP"
    const { entry, gfn: owned } = this.seen(pfn)
    if (entry.asid !== asid) return "#NPF RMP"
    if (owned !== gfn) return "#NPF RMP"
    if (entry.immutable) return "#NPF RMP"
    if (entry.size !== npt) return "#NPF RMP"
    if (!entry.validated) return "#VC"
    const mask = entry.perms[vmpl] as number
    const can = { read: (mask & 1) > 0, write: (mask & 2) > 0, user: (mask & 4) > 0, supervisor: (mask & 8) > 0 }
    let allowed: boolean
    if (kind === "fetch") allowed = cpl === 3 ? can.user : can.supervisor
    else if (kind === "pt-read") allowed = can.read
    else if (kind === "read") allowed = can.read || (can.write && this.alternatives.has("U14"))
    else allowed = can.write && can.read
    return allowed ? "ok" : "#NPF RMP VMPL"
  }

  vmsaMayRun(asid: number, gfn: number, pfn: number): boolean {
    if (!this.covered(pfn)) return false
    const { entry, gfn: owned } = this.seen(pfn)
    return entry.asid === asid && owned === gfn && !entry.immutable && entry.vmsa
  }

  use(pfn: number, inUse: boolean): void {
    if (this.covered(pfn)) this.entries.set(pfn, { ...this.at(pfn), inUse })
  }

  /** The firmware takes a page back: PAGE_RECLAIM of a page of any kind that is not HV-Fixed. */
  firmware(pfn: number, fields: Partial<Entry>): void {
    this.entries.set(pfn, { ...this.at(pfn), ...fields })
  }

  state(pfn: number): string {
    if (!this.covered(pfn)) return "Default"
    const { assigned, validated, asid, immutable, gfn, vmsa } = this.seen(pfn).entry
    const row = [assigned, validated, asid > 0, immutable].map(Number).join("")
    const states: Record<string, string> = {
      "0000": "Hypervisor",
      "0001": "HV-Fixed",
      "1000": "Reclaim",
      "1011": "Pre-Guest",
      "1111": "Pre-Swap",
      "1010": "Guest-Invalid",
      "1110": "Guest-Valid"
    }
    if (row !== "1001") return states[row] ?? "Invalid"
    if (gfn === 0) return vmsa ? "Context" : "Firmware"
    return gfn === 1 && !vmsa ? "Firmware-IOMMU" : "Metadata"
  }
}
