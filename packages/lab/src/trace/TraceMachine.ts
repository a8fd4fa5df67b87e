import { createHash } from "node:crypto"
import { carryOf, eaxOf, isFault, NOT_MAPPED, Rmp, type RmpQueryResult, type RmpReadResult } from "@vmpl-lab/rmp"
import type {
  Action,
  FirmwareAction,
  GuestAccessAction,
  GuestAt,
  PlainAccessAction,
  PvalidateAction,
  RmpadjustAction,
  RmpqueryAction,
  TraceConfig,
  VmrunAction
} from "./Action.ts"
import type { FirmwarePort } from "./FirmwarePort.ts"
import { checkReply, eaxReply, entryReply, faultReply, OK, type Reply } from "./Reply.ts"
import { traceFirmware } from "./TraceFirmware.ts"
import { addressText, permsOf, sizeText } from "./TraceText.ts"

/** System frame that the nested mapping gives the GPA. */
const pfnOf = ({ gfn, npt }: GuestAt): number => {
  if (npt === null) return NOT_MAPPED
  return npt.size === 0 ? npt.pfn : npt.pfn + (gfn % 512)
}

/** The size matters only where there is a mapping. */
const nptSizeOf = ({ npt }: GuestAt) => npt?.size ?? 0

/** A VMPL that no machine has, for targets beyond those of a configuration with fewer levels. */
const NO_VMPL = 255

/** The machine that a trace drives: an RMP, the VMPLs of its guests and the AMD-SP. */
export class TraceMachine {
  readonly config: TraceConfig
  readonly rmp: Rmp
  readonly #firmware: FirmwarePort
  readonly #read: RmpReadResult = { assigned: false, size: 0, immutable: false, gfn: 0, asid: 0, regionStatus: false }
  readonly #query: RmpQueryResult = { mask: 0, vmsa: false, size: 0 }

  constructor(config: TraceConfig, firmware: (rmp: Rmp) => FirmwarePort = traceFirmware) {
    this.config = config
    this.rmp = new Rmp({ pages: config.pages, basePfn: config.basePfn, switches: config.switches })
    this.#firmware = firmware(this.rmp)
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
        return { status: this.#command(action) }
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
    const code = this.rmp.pvalidate(asid, vmpl, gfn, pfnOf(action), nptSizeOf(action), size, validate)
    return isFault(code) ? faultReply(code) : { eax: eaxOf(code), cf: carryOf(code) }
  }

  #rmpadjust(action: RmpadjustAction): Reply {
    const { asid, vmpl, gfn, size, targetVmpl, mask, vmsa } = action
    const target = this.#target(targetVmpl)
    return eaxReply(this.rmp.rmpadjust(asid, vmpl, gfn, pfnOf(action), nptSizeOf(action), size, target, mask, vmsa))
  }

  #rmpquery(action: RmpqueryAction): Reply {
    const { asid, vmpl, gfn, targetVmpl } = action
    const out = this.#query
    const target = this.#target(targetVmpl)
    const code = this.rmp.rmpquery(asid, vmpl, gfn, pfnOf(action), nptSizeOf(action), target, out)
    if (code !== 0) return eaxReply(code)
    return { eax: 0, perms: permsOf(out.mask), vmsa: out.vmsa, size: sizeText(out.size) }
  }

  #target(vmpl: number): number {
    return vmpl < this.config.vmpls ? vmpl : NO_VMPL
  }

  #guestAccess(action: GuestAccessAction): number {
    const { asid, vmpl, cpl, kind, cbit, gfn } = action
    return this.rmp.checkGuest(asid, vmpl, cpl, kind, cbit, gfn, pfnOf(action), nptSizeOf(action))
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

  #command(action: FirmwareAction) {
    const firmware = this.#firmware
    const { pfn } = action
    switch (action.command) {
      case "GCTX_CREATE":
        return firmware.gctxCreate(pfn)
      case "DECOMMISSION":
        return firmware.decommission(pfn)
      case "LAUNCH_UPDATE":
        return firmware.launchUpdate(pfn, action)
      case "PAGE_RECLAIM":
        return firmware.pageReclaim(pfn)
      case "PAGE_UNSMASH":
        return firmware.pageUnsmash(pfn)
      case "PAGE_SET_STATE":
        return firmware.pageSetState(pfn)
      case "MD_INIT":
        return firmware.mdInit(pfn, action.contextPfn)
      case "PAGE_MOVE":
        return firmware.pageMove(pfn, action.targetPfn, action.metadataPfn)
      case "SWAP_OUT":
        return firmware.swapOut(pfn, action.targetPfn, action.metadataPfn)
      case "SWAP_IN":
        return firmware.swapIn(pfn, action.targetPfn, action.metadataPfn)
    }
  }
}
