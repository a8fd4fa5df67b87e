// @section 1.7
import { PAGE_2M, PAGE_4K, type PageState, type RmpEntry } from "@vmpl-lab/rmp"
import { PAGE_TYPE } from "./LaunchDigest.ts"
import type { MetadataEntry } from "./Metadata.ts"
import type {
  LaunchPageCommand,
  MetadataInitCommand,
  OnePageCommand,
  PageCommand,
  TransferCommand
} from "./PageCommand.ts"
import type { PspRmp } from "./Ports.ts"
import type { Status } from "./Status.ts"

/** What checks look at: the RMP, and what the AMD-SP has noted itself. */
export interface PageView {
  readonly rmp: PspRmp
  /** First entry of a metadata page. */
  readonly metadata: (pfn: number) => MetadataEntry | undefined
  /** Whether the image in a frame is the one that the entry was made with. */
  readonly isImageOf: (pfn: number, entry: MetadataEntry) => boolean
}

/** One check of a command: the status with which it refuses, or null. */
export interface PageCheck<Command> {
  readonly name: string
  readonly refuses: (view: PageView, command: Command) => Status | null
}

/** The entry that rules a page: entries inside a 2 MiB page are blank, its first one speaks for all. */
export const rulingEntry = (rmp: PspRmp, pfn: number): RmpEntry => {
  const head = rmp.entry(pfn - (pfn % rmp.pagesPer2M))
  return head.assigned && head.size === PAGE_2M ? head : rmp.entry(pfn)
}

const isInside2M = (rmp: PspRmp, pfn: number): boolean =>
  pfn % rmp.pagesPer2M !== 0 && rulingEntry(rmp, pfn).size === PAGE_2M

type FrameOf<Command> = (command: Command) => number

/** A check that a page is in one of the states. */
export const stateIn = <Command>(
  name: string,
  frame: FrameOf<Command>,
  states: ReadonlyArray<PageState>,
  status: Status
): PageCheck<Command> => ({
  name,
  refuses: ({ rmp }, command) => (states.includes(rmp.stateOf(frame(command))) ? null : status)
})

/** Inner pages of a 2 MiB page are not named by themselves. */
const aligned = <Command>(frame: FrameOf<Command>): PageCheck<Command> => ({
  name: "2 MiB page at its first 4 KiB",
  refuses: ({ rmp }, command) => (isInside2M(rmp, frame(command)) ? "INVALID_ADDRESS" : null)
})

const page: FrameOf<{ readonly pfn: number }> = ({ pfn }) => pfn
const target: FrameOf<TransferCommand> = ({ targetPfn }) => targetPfn
const metadataPage: FrameOf<TransferCommand> = ({ metadataPfn }) => metadataPfn

const sizeIs4K: PageCheck<{ readonly pfn: number }> = {
  name: "4 KiB page",
  refuses: ({ rmp }, { pfn }) => (rulingEntry(rmp, pfn).size === PAGE_4K ? null : "INVALID_PAGE_SIZE")
}

/** @spec SNP-ABI GCTX_CREATE */
export const GCTX_CREATE: ReadonlyArray<PageCheck<OnePageCommand>> = [
  stateIn("page is Firmware", page, ["Firmware"], "INVALID_PAGE_STATE"),
  sizeIs4K
]

/** @spec SNP-ABI DECOMMISSION */
export const DECOMMISSION: ReadonlyArray<PageCheck<OnePageCommand>> = [
  stateIn("page is Context", page, ["Context"], "INVALID_GUEST")
]

const isOneOf4K = (type: number): boolean =>
  type === PAGE_TYPE.VMSA || type === PAGE_TYPE.SECRETS || type === PAGE_TYPE.CPUID

const isKnownType = (type: number): boolean =>
  isOneOf4K(type) || type === PAGE_TYPE.NORMAL || type === PAGE_TYPE.ZERO || type === PAGE_TYPE.UNMEASURED

/** What LAUNCH_UPDATE asks of the page before it looks at the guest. @spec SNP-ABI LAUNCH_UPDATE */
export const LAUNCH_UPDATE_PAGE: ReadonlyArray<PageCheck<Omit<LaunchPageCommand, "asid" | "masks">>> = [
  stateIn("page is Pre-Guest", page, ["Pre-Guest"], "INVALID_PAGE_STATE"),
  {
    name: "size is that of the RMP entry",
    refuses: ({ rmp }, { pfn, size }) => (rulingEntry(rmp, pfn).size === size ? null : "INVALID_PAGE_SIZE")
  },
  aligned(page),
  { name: "known page type", refuses: (_, { pageType }) => (isKnownType(pageType) ? null : "INVALID_PARAM") },
  {
    name: "VMSA, secrets and CPUID pages have 4 KiB",
    refuses: (_, { pageType, size }) => (isOneOf4K(pageType) && size !== PAGE_4K ? "INVALID_PAGE_SIZE" : null)
  }
]

/** And after that. @spec SNP-ABI LAUNCH_UPDATE */
export const LAUNCH_UPDATE_OWNER: ReadonlyArray<PageCheck<Pick<LaunchPageCommand, "pfn" | "asid">>> = [
  {
    name: "page belongs to the guest",
    refuses: ({ rmp }, { pfn, asid }) => (rulingEntry(rmp, pfn).asid === asid ? null : "INVALID_PAGE_OWNER")
  }
]

/**
 * Mutable pages are reclaimed already: success without a change.
 * @spec SNP-ABI PAGE_RECLAIM
 * @spec-silent a page that the RMP does not cover: the published firmware looks at an entry that it has not read
 */
export const PAGE_RECLAIM: ReadonlyArray<PageCheck<OnePageCommand>> = [
  {
    name: "page is covered",
    refuses: ({ rmp }, { pfn }) => (rmp.stateOf(pfn) === "Default" ? "INVALID_PAGE_STATE" : null)
  },
  aligned(page),
  {
    name: "page is Metadata, Firmware, Pre-Guest, Pre-Swap or mutable",
    refuses: ({ rmp }, { pfn }) => {
      const taken: ReadonlyArray<PageState> = ["Metadata", "Firmware", "Pre-Guest", "Pre-Swap"]
      return rulingEntry(rmp, pfn).immutable && !taken.includes(rmp.stateOf(pfn)) ? "INVALID_PAGE_STATE" : null
    }
  }
]

/** @spec SNP-ABI PAGE_SET_STATE */
export const PAGE_SET_STATE: ReadonlyArray<PageCheck<OnePageCommand>> = [
  stateIn("page is Firmware", page, ["Firmware"], "INVALID_PAGE_STATE"),
  aligned(page)
]

/** @spec SNP-ABI MD_INIT */
export const MD_INIT: ReadonlyArray<PageCheck<MetadataInitCommand>> = [
  stateIn("guest context is Context", ({ contextPfn }) => contextPfn, ["Context"], "INVALID_GUEST"),
  stateIn("page is Firmware", page, ["Firmware"], "INVALID_PAGE_STATE"),
  aligned(page)
]

/** Entries of the 512 pages, which must be those of one 2 MiB page but for Page_Size. */
const fits2M = ({ rmp }: PageView, first: number): boolean => {
  const { asid, gfn, perms } = rmp.entry(first)
  const state = rmp.stateOf(first)
  if (asid === 0 || gfn % rmp.pagesPer2M !== 0) return false
  for (let i = 0; i < rmp.pagesPer2M; i++) {
    const one = rmp.entry(first + i)
    const alike = one.asid === asid && one.gfn === gfn + i && one.perms.every((mask, vmpl) => mask === perms[vmpl])
    if (one.size !== PAGE_4K || !one.immutable || one.vmsa || !alike || rmp.stateOf(first + i) !== state) return false
  }
  return true
}

/** @spec SNP-ABI PAGE_UNSMASH */
export const PAGE_UNSMASH: ReadonlyArray<PageCheck<OnePageCommand>> = [
  {
    name: "address is 2 MiB aligned",
    refuses: ({ rmp }, { pfn }) => (pfn % rmp.pagesPer2M === 0 ? null : "INVALID_PARAM")
  },
  {
    name: "512 immutable 4 KiB pages of one guest, alike and consecutive",
    refuses: (view, { pfn }) => (fits2M(view, pfn) ? null : "INVALID_PAGE_STATE")
  }
]

const GUEST_SOURCES: ReadonlyArray<PageState> = ["Pre-Guest", "Pre-Swap"]
const isGuestSource = (state: PageState): boolean => GUEST_SOURCES.includes(state)

/** @spec SNP-ABI PAGE_MOVE */
export const PAGE_MOVE: ReadonlyArray<PageCheck<TransferCommand>> = [
  {
    name: "source and destination have one size",
    refuses: ({ rmp }, { pfn, targetPfn }) =>
      rulingEntry(rmp, pfn).size === rulingEntry(rmp, targetPfn).size ? null : "INVALID_PAGE_SIZE"
  },
  {
    name: "Pre-Guest or Pre-Swap to Pre-Guest, or Metadata to Firmware",
    refuses: ({ rmp }, { pfn, targetPfn }) => {
      const [from, to] = [rmp.stateOf(pfn), rmp.stateOf(targetPfn)]
      const fits = (isGuestSource(from) && to === "Pre-Guest") || (from === "Metadata" && to === "Firmware")
      return fits ? null : "INVALID_PAGE_STATE"
    }
  },
  aligned(page),
  aligned(target),
  {
    name: "source and destination belong to one guest",
    refuses: ({ rmp }, { pfn, targetPfn }) =>
      rulingEntry(rmp, pfn).asid === rulingEntry(rmp, targetPfn).asid ? null : "INVALID_PAGE_OWNER"
  }
]

/** The metadata page names the guest: the frame in its GPA must hold a guest context. */
const swapMetadata: ReadonlyArray<PageCheck<TransferCommand>> = [
  {
    name: "metadata lies in neither page",
    refuses: ({ rmp }, { pfn, targetPfn, metadataPfn }) => {
      const holds = (first: number): boolean => {
        const pages = rulingEntry(rmp, first).size === PAGE_4K ? 1 : rmp.pagesPer2M
        return metadataPfn >= first && metadataPfn < first + pages
      }
      return holds(pfn) || holds(targetPfn) ? "INVALID_PARAM" : null
    }
  },
  stateIn("metadata page is Metadata", metadataPage, ["Metadata"], "INVALID_PAGE_STATE"),
  {
    name: "metadata page's guest context is Context",
    refuses: ({ rmp }, { metadataPfn }) =>
      rmp.stateOf(rulingEntry(rmp, metadataPfn).gfn) === "Context" ? null : "INVALID_GUEST"
  }
]

const ownerOf = (rmp: PspRmp, pfn: number): number => rulingEntry(rmp, pfn).gfn

/** @spec SNP-ABI SWAP_OUT */
export const SWAP_OUT: ReadonlyArray<PageCheck<TransferCommand>> = [
  ...swapMetadata,
  {
    name: "source and destination have one size",
    refuses: ({ rmp }, { pfn, targetPfn }) =>
      rmp.stateOf(targetPfn) === "Default" || rulingEntry(rmp, pfn).size === rulingEntry(rmp, targetPfn).size
        ? null
        : "INVALID_PAGE_SIZE"
  },
  {
    name: "Pre-Guest, Pre-Swap or Metadata to Firmware or Default",
    refuses: ({ rmp }, { pfn, targetPfn }) => {
      const [from, to] = [rmp.stateOf(pfn), rmp.stateOf(targetPfn)]
      const fits = (isGuestSource(from) || from === "Metadata") && (to === "Firmware" || to === "Default")
      return fits ? null : "INVALID_PAGE_STATE"
    }
  },
  aligned(page),
  aligned(target),
  {
    name: "a metadata page that is swapped belongs to the same guest",
    refuses: ({ rmp }, { pfn, metadataPfn }) =>
      rmp.stateOf(pfn) !== "Metadata" || ownerOf(rmp, pfn) === ownerOf(rmp, metadataPfn) ? null : "INVALID_PAGE_OWNER"
  }
]

const swappedEntry = ({ metadata }: PageView, { metadataPfn }: TransferCommand): MetadataEntry | undefined => {
  const entry = metadata(metadataPfn)
  return entry?.valid === true ? entry : undefined
}

/** @spec SNP-ABI SWAP_IN */
export const SWAP_IN: ReadonlyArray<PageCheck<TransferCommand>> = [
  ...swapMetadata,
  {
    name: "metadata entry is valid",
    refuses: (view, command) => (swappedEntry(view, command) === undefined ? "INVALID_MDATA_ENTRY" : null)
  },
  {
    name: "image, destination and metadata entry have one size",
    refuses: (view, command) => {
      const { rmp } = view
      const size = swappedEntry(view, command)?.size
      const source = rmp.stateOf(command.pfn) === "Default" ? size : rulingEntry(rmp, command.pfn).size
      return size === source && size === rulingEntry(rmp, command.targetPfn).size ? null : "INVALID_PAGE_SIZE"
    }
  },
  {
    name: "destination is Pre-Guest; of a metadata page, Firmware",
    refuses: (view, command) => {
      const wanted = swappedEntry(view, command)?.kind === "metadata" ? "Firmware" : "Pre-Guest"
      return view.rmp.stateOf(command.targetPfn) === wanted ? null : "INVALID_PAGE_STATE"
    }
  },
  aligned(target),
  {
    name: "destination belongs to the guest whose page it was",
    refuses: (view, command) => {
      const entry = swappedEntry(view, command)
      return entry?.kind === "metadata" || rulingEntry(view.rmp, command.targetPfn).asid === entry?.asid
        ? null
        : "INVALID_PAGE_OWNER"
    }
  },
  {
    name: "authentication tag is that of the metadata entry",
    refuses: (view, command) => {
      const entry = swappedEntry(view, command)
      return entry !== undefined && view.isImageOf(command.pfn, entry) ? null : "BAD_MEASUREMENT"
    }
  }
]

/** The check that refuses first, and its status; SUCCESS where none does. */
export const firstRefusal = <Command>(
  checks: ReadonlyArray<PageCheck<Command>>,
  view: PageView,
  command: Command
): { readonly check: string; readonly status: Status } => {
  for (const { name, refuses } of checks) {
    const status = refuses(view, command)
    if (status !== null) return { check: name, status }
  }
  return { check: "no check refuses", status: "SUCCESS" }
}

/** Every page that a command names. */
const namedPages = (command: PageCommand): ReadonlyArray<number> => {
  switch (command.command) {
    case "MD_INIT":
      return [command.contextPfn, command.pfn]
    case "PAGE_MOVE":
      return [command.pfn, command.targetPfn]
    case "SWAP_OUT":
    case "SWAP_IN":
      return [command.pfn, command.targetPfn, command.metadataPfn]
    default:
      return [command.pfn]
  }
}

/** Commands whose own look-up of the page answers otherwise. */
const RANGE_COMMANDS: ReadonlyArray<string> = ["PAGE_RECLAIM", "PAGE_UNSMASH", "PAGE_SET_STATE"]

/** Whether a page holds a part of the RMP. */
export const isOwnFrame = (rmp: PspRmp, pfn: number): boolean =>
  rmp.layout.ownFrames.some(({ first, count }) => pfn >= first && pfn < first + count)

/** The AMD-SP is never pointed at the RMP itself, although its pages are Firmware. */
const rmpItself: PageCheck<PageCommand> = {
  name: "page is no part of the RMP",
  refuses: ({ rmp }, command) => {
    if (!namedPages(command).some((pfn) => isOwnFrame(rmp, pfn))) return null
    return RANGE_COMMANDS.includes(command.command) ? "INVALID_ADDRESS" : "INVALID_PARAM"
  }
}

/** The checks of a command, in the firmware's order. */
export const decidePageCommand = (view: PageView, command: PageCommand) => {
  const own = firstRefusal([rmpItself], view, command)
  return own.status === "SUCCESS" ? decideByPages(view, command) : own
}

const decideByPages = (view: PageView, command: PageCommand) => {
  switch (command.command) {
    case "GCTX_CREATE":
      return firstRefusal(GCTX_CREATE, view, command)
    case "DECOMMISSION":
      return firstRefusal(DECOMMISSION, view, command)
    case "LAUNCH_UPDATE": {
      const page = firstRefusal(LAUNCH_UPDATE_PAGE, view, command)
      return page.status === "SUCCESS" ? firstRefusal(LAUNCH_UPDATE_OWNER, view, command) : page
    }
    case "PAGE_RECLAIM":
      return firstRefusal(PAGE_RECLAIM, view, command)
    case "PAGE_UNSMASH":
      return firstRefusal(PAGE_UNSMASH, view, command)
    case "PAGE_SET_STATE":
      return firstRefusal(PAGE_SET_STATE, view, command)
    case "MD_INIT":
      return firstRefusal(MD_INIT, view, command)
    case "PAGE_MOVE":
      return firstRefusal(PAGE_MOVE, view, command)
    case "SWAP_OUT":
      return firstRefusal(SWAP_OUT, view, command)
    case "SWAP_IN":
      return firstRefusal(SWAP_IN, view, command)
  }
}
