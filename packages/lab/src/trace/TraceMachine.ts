import { createHash } from "node:crypto"
import { PageCommands } from "@vmpl-lab/psp"
import { carryOf, eaxOf, isFault, NOT_MAPPED, Rmp, type RmpQueryResult, type RmpReadResult } from "@vmpl-lab/rmp"
import type {
  Action,
  GuestAccessAction,
  GuestAt,
  PlainAccessAction,
  PvalidateAction,
  RmpadjustAction,
  RmpqueryAction,
  TraceConfig,
  VmrunAction
} from "./Action.ts"
import { checkReply, eaxReply, entryReply, faultReply, OK, type Reply } from "./Reply.ts"
import { addressText, permsOf, sizeText } from "./TraceText.ts"

/** System frame that the nested mapping gives the GPA. */
export const pfnOf = ({ gfn, npt }: GuestAt, rmp: Rmp): number => {
  if (npt === null) return NOT_MAPPED
  return npt.size === 0 ? npt.pfn : npt.pfn + (gfn % rmp.pagesPer2M)
}

/** The size matters only where there is a mapping. */
export const nptSizeOf = ({ npt }: GuestAt) => npt?.size ?? 0

/** The machine that a trace drives: an RMP, the VMPLs of its guests and the AMD-SP's page commands. */
export class TraceMachine {
  readonly config: TraceConfig
  readonly rmp: Rmp
  readonly pages: PageCommands
  readonly #read: RmpReadResult = { assigned: false, size: 0, immutable: false, gfn: 0, asid: 0, regionStatus: false }
  readonly #query: RmpQueryResult = { mask: 0, vmsa: false, size: 0 }

  /** `rmp` replaces the one that the configuration describes: the same coverage in another layout. */
  constructor(config: TraceConfig, rmp: Rmp = new Rmp(config)) {
    this.config = config
    this.rmp = rmp
    this.pages = new PageCommands(rmp)
  }

  /** Does one action and gives its reply. */
  apply(action: Action): Reply {
    const { rmp } = this
    switch (action.op) {
      case "rmpupdate": {
        const { pfn, assigned, size, immutable, gfn, asid } = action
        return eaxReply(rmp.rmpupdate(pfn, assigned, size, immutable, gfn, asid))
      }
      case "psmash":
        return eaxReply(rmp.psmash(action.pfn))
      case "rmpread":
        return this.#rmpread(action.pfn)
      case "pvalidate":
        return this.#pvalidate(action)
      case "rmpadjust":
        return this.#rmpadjust(action)
      case "rmpquery":
        return this.#rmpquery(action)
      case "access":
        return checkReply(action.by === "guest" ? this.#guestAccess(action) : this.#plainAccess(action))
      case "vmrun":
        return this.#vmrun(action)
      case "vmexit":
        rmp.clearInUse(action.pfn)
        return OK
      case "firmware":
        return { status: this.pages.execute(action) }
      case "entry":
        if (!rmp.isCovered(action.pfn)) return { state: "Default" }
        return entryReply(rmp.stateOf(action.pfn), rmp.entry(action.pfn))
      case "digest":
        return { digest: this.digest() }
    }
  }

  /** SHA-256 over all entries, 64 hexadecimal digits: equal states give equal digests, whatever led to them. */
  digest(): string {
    const hash = createHash("sha256")
    this.rmp.digestInto((bytes) => hash.update(bytes))
    return hash.digest("hex")
  }

  #rmpread(pfn: number): Reply {
    const code = this.rmp.rmpread(pfn, this.#read)
    if (code !== 0) return eaxReply(code)
    const { assigned, size, immutable, gfn, asid, regionStatus } = this.#read
    return { eax: 0, entry: { assigned, size: sizeText(size), immutable, gpa: addressText(gfn), asid, regionStatus } }
  }

  #pvalidate(action: PvalidateAction): Reply {
    const { asid, vmpl, gfn, size, validate } = action
    const code = this.rmp.pvalidate(asid, vmpl, gfn, pfnOf(action, this.rmp), nptSizeOf(action), size, validate)
    return isFault(code) ? faultReply(code) : { eax: eaxOf(code), cf: carryOf(code) }
  }

  #rmpadjust(action: RmpadjustAction): Reply {
    const { asid, vmpl, gfn, size, targetVmpl, mask, vmsa } = action
    return eaxReply(
      this.rmp.rmpadjust(asid, vmpl, gfn, pfnOf(action, this.rmp), nptSizeOf(action), size, targetVmpl, mask, vmsa)
    )
  }

  #rmpquery(action: RmpqueryAction): Reply {
    const { asid, vmpl, gfn, targetVmpl } = action
    const out = this.#query
    const code = this.rmp.rmpquery(asid, vmpl, gfn, pfnOf(action, this.rmp), nptSizeOf(action), targetVmpl, out)
    if (code !== 0) return eaxReply(code)
    return { eax: 0, perms: permsOf(out.mask), vmsa: out.vmsa, size: sizeText(out.size) }
  }

  #guestAccess(action: GuestAccessAction): number {
    const { asid, vmpl, cpl, kind, cbit, gfn } = action
    return this.rmp.checkGuest(asid, vmpl, cpl, kind, cbit, gfn, pfnOf(action, this.rmp), nptSizeOf(action))
  }

  #plainAccess({ by, pfn, kind, size }: PlainAccessAction): number {
    return by === "host" ? this.rmp.checkHost(pfn, kind, size) : this.rmp.checkNonSnpGuest(pfn, kind, size)
  }

  /**
   * VMRUN's checks of the VMSA page, then the page is in use until `vmexit`. A page in use already is no reason to
   * refuse: table 15-41 names no such check, and one `vmexit` ends the use.
   * @spec APM2 15.36.10 table 15-41
   * @spec-silent VMRUN of a VMSA that is in use
   */
  #vmrun({ asid, gfn, pfn, snp }: VmrunAction): Reply {
    const { rmp } = this
    if (!(snp ? rmp.checkVmrunVmsa(asid, gfn, pfn) : rmp.checkHypervisorOwned(pfn))) return { exit: "VMEXIT_INVALID" }
    rmp.markInUse(pfn)
    return OK
  }
}
