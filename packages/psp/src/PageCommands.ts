// @section 1.7
import { PAGE_2M, PAGE_4K, type RmpEntry } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { PAGE_TYPE } from "./LaunchDigest.ts"
import type { MetadataEntry } from "./Metadata.ts"
import { decidePageCommand, type PageView, rulingEntry } from "./PageChecks.ts"
import type { LaunchPageCommand, PageCommand, TransferCommand } from "./PageCommand.ts"
import { type ContentsOwner, moveContents, unwrapContents, wrapContents } from "./PageContents.ts"
import type { PspMemory, PspRmp } from "./Ports.ts"
import type { Status } from "./Status.ts"

/** Contents of pages, for commands that move them: the memory, and the guest that a context page stands for. */
export interface PageContentsPort {
  readonly memory: PspMemory
  readonly ownerOf: (contextPfn: number) => ContentsOwner | undefined
}

const NO_TAG = new Uint8Array(0)

/**
 * The AMD-SP's commands that move page states. A refused command changes nothing. Without contents only the RMP, the
 * metadata entries and which image lies where are kept: an image that the hypervisor copies elsewhere is then unknown.
 * @spec SNP-ABI "Page States"
 */
export class PageCommands {
  readonly #rmp: PspRmp
  readonly #contents: PageContentsPort | null
  readonly #metadata = new Map<number, MetadataEntry>()
  /** Which image the hypervisor was given in a frame. */
  readonly #images = new Map<number, number>()
  /** Entries of metadata pages that are swapped out, by their image. */
  readonly #swappedMetadata = new Map<number, MetadataEntry>()
  /** Images made for each guest, by its context page. */
  readonly #counters = new Map<number, bigint>()
  #imagesMade = 0
  readonly #view: PageView

  constructor(rmp: PspRmp, contents: PageContentsPort | null = null) {
    this.#rmp = rmp
    this.#contents = contents
    this.#view = {
      rmp,
      metadata: (pfn) => this.#metadata.get(pfn),
      isImageOf: (pfn, entry) => contents !== null || this.#images.get(pfn) === entry.image
    }
  }

  /** What checks look at. */
  get view(): PageView {
    return this.#view
  }

  /** The check that will refuse a command, with its status; changes nothing. */
  decide(command: PageCommand): { readonly check: string; readonly status: Status } {
    return decidePageCommand(this.#view, command)
  }

  execute(command: PageCommand): Status {
    const { status } = this.decide(command)
    return status === "SUCCESS" ? this.#perform(command) : status
  }

  /** What LAUNCH_UPDATE leaves in the entry: Pre-Guest -> Guest-Valid. @spec SNP-ABI LAUNCH_UPDATE */
  launch({ pfn, pageType, masks }: Pick<LaunchPageCommand, "pfn" | "pageType" | "masks">): void {
    this.#rmp.firmwareSet(pfn, {
      perms: [rulingEntry(this.#rmp, pfn).perms[0], ...masks],
      ...(pageType === PAGE_TYPE.VMSA ? { vmsa: true } : {}),
      validated: true,
      immutable: false
    })
  }

  #perform(command: PageCommand): Status {
    const { pfn } = command
    const rmp = this.#rmp
    switch (command.command) {
      case "GCTX_CREATE":
        // A Firmware page whose RMP.VMSA is set is what the architecture calls a Context page.
        rmp.firmwareSet(pfn, { vmsa: true })
        return "SUCCESS"
      case "DECOMMISSION":
        this.#counters.delete(pfn)
        rmp.firmwareSet(pfn, { vmsa: false })
        return "SUCCESS"
      case "LAUNCH_UPDATE":
        this.launch(command)
        return "SUCCESS"
      case "PAGE_RECLAIM":
        if (rulingEntry(rmp, pfn).immutable) rmp.firmwareSet(pfn, { immutable: false })
        this.#metadata.delete(pfn)
        return "SUCCESS"
      case "PAGE_SET_STATE":
        this.#fix(pfn)
        return "SUCCESS"
      case "PAGE_UNSMASH":
        this.#unsmash(pfn)
        return "SUCCESS"
      case "MD_INIT":
        rmp.firmwareSet(pfn, { gfn: command.contextPfn })
        this.#metadata.delete(pfn)
        return "SUCCESS"
      case "PAGE_MOVE":
        return this.#move(command)
      case "SWAP_OUT":
        return this.#swapOut(command)
      case "SWAP_IN":
        return this.#swapIn(command)
    }
  }

  /** Firmware -> HV-Fixed, of every 4 KiB page. @spec SNP-ABI PAGE_SET_STATE */
  #fix(pfn: number): void {
    const pages = this.#pagesOf(pfn)
    for (let i = 0; i < pages; i++)
      this.#rmp.firmwareSet(pfn + i, { assigned: false, size: PAGE_4K, immutable: true, perms: [0, 0, 0, 0] })
  }

  /** 512 pages become one of 2 MiB, the 511 after the first blank but for Assigned. @spec SNP-ABI PAGE_UNSMASH */
  #unsmash(pfn: number): void {
    const blank = { assigned: true, immutable: false, gfn: 0, asid: 0, validated: false, vmsa: false } as const
    for (let i = 1; i < this.#rmp.pagesPer2M; i++) this.#rmp.firmwareSet(pfn + i, { ...blank, perms: [0, 0, 0, 0] })
    this.#rmp.firmwareSet(pfn, { size: PAGE_2M })
  }

  #move({ pfn, targetPfn }: TransferCommand): Status {
    const rmp = this.#rmp
    const from = rulingEntry(rmp, pfn)
    if (rmp.stateOf(pfn) === "Metadata") {
      const entry = this.#metadata.get(pfn)
      rmp.firmwareSet(targetPfn, { gfn: from.gfn })
      rmp.firmwareSet(pfn, { gfn: 0, vmsa: false })
      this.#metadata.delete(pfn)
      if (entry !== undefined) this.#metadata.set(targetPfn, entry)
      return "SUCCESS"
    }
    if (this.#contents !== null) moveContents(this.#contents.memory, pfn, targetPfn, this.#pagesOf(pfn), from.asid)
    const { gfn, vmsa, perms, validated } = from
    rmp.firmwareSet(targetPfn, { gfn, vmsa, perms, validated, immutable: false })
    rmp.firmwareSet(pfn, { validated: false, immutable: false })
    return "SUCCESS"
  }

  #swapOut({ pfn, targetPfn, metadataPfn }: TransferCommand): Status {
    const rmp = this.#rmp
    const context = rulingEntry(rmp, metadataPfn).gfn
    const from = rulingEntry(rmp, pfn)
    const isMetadata = rmp.stateOf(pfn) === "Metadata"
    const iv = this.#counters.get(context) ?? 0n
    const wrapped = this.#wrap(context, pfn, targetPfn, isMetadata, iv)
    if (wrapped === null) return "INACTIVE"
    this.#counters.set(context, iv + 1n)
    const image = this.#imagesMade++
    this.#metadata.set(metadataPfn, {
      valid: true,
      kind: isMetadata ? "metadata" : from.vmsa ? "vmsa" : "data",
      size: from.size,
      gfn: isMetadata ? 0 : from.gfn,
      asid: from.asid,
      validated: from.validated,
      perms: isMetadata ? [0, 0, 0, 0] : from.perms,
      iv,
      image,
      tag: wrapped
    })
    this.#images.set(targetPfn, image)
    if (isMetadata) {
      const inside = this.#metadata.get(pfn)
      if (inside !== undefined) this.#swappedMetadata.set(image, inside)
      this.#metadata.delete(pfn)
      rmp.firmwareSet(pfn, { gfn: 0, vmsa: false })
    } else rmp.firmwareSet(pfn, { validated: false })
    return "SUCCESS"
  }

  #swapIn({ pfn, targetPfn, metadataPfn }: TransferCommand): Status {
    const rmp = this.#rmp
    const context = rulingEntry(rmp, metadataPfn).gfn
    const entry = this.#metadata.get(metadataPfn)!
    if (!this.#unwrap(context, pfn, targetPfn, entry)) return "BAD_MEASUREMENT"
    this.#metadata.set(metadataPfn, { ...entry, valid: false })
    if (entry.kind === "metadata") {
      rmp.firmwareSet(targetPfn, { gfn: context })
      const inside = this.#swappedMetadata.get(entry.image)
      if (inside !== undefined) this.#metadata.set(targetPfn, inside)
      return "SUCCESS"
    }
    const fields: Partial<RmpEntry> = { gfn: entry.gfn, vmsa: entry.kind === "vmsa", perms: entry.perms }
    rmp.firmwareSet(targetPfn, entry.validated ? { ...fields, validated: true } : fields)
    return "SUCCESS"
  }

  #pagesOf(pfn: number): number {
    return rulingEntry(this.#rmp, pfn).size === PAGE_2M ? this.#rmp.pagesPer2M : 1
  }

  /** The image's tag; null where the guest is not active. Metadata pages are the AMD-SP's: their bytes are not modelled. */
  #wrap(context: number, from: number, to: number, isMetadata: boolean, iv: bigint): Uint8Array | null {
    if (this.#contents === null || isMetadata) return NO_TAG
    const owner = this.#contents.ownerOf(context)
    return owner === undefined ? null : wrapContents(this.#contents.memory, from, to, this.#pagesOf(from), owner, iv)
  }

  /** Fills the destination; false where the image is not the one that the entry was made with. */
  #unwrap(context: number, from: number, to: number, entry: MetadataEntry): boolean {
    if (this.#contents === null) return true
    if (entry.kind === "metadata") return this.#images.get(from) === entry.image
    const owner = this.#contents.ownerOf(context)
    if (owner === undefined) return false
    const { memory } = this.#contents
    const contents = unwrapContents(memory, from, this.#pagesOf(to), owner, entry.iv, entry.tag)
    if (contents === null) return false
    for (let i = 0; i < contents.length / PAGE_SIZE; i++)
      memory.writeEncrypted(to + i, owner.asid, contents.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE))
    return true
  }
}
