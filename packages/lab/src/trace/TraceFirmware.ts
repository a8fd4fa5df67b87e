import { PAGE_TYPE, type Status } from "@vmpl-lab/psp"
import { PAGE_4K, PAGES_PER_2M, type Rmp, type RmpEntry } from "@vmpl-lab/rmp"
import type { FirmwarePort, PageLaunch } from "./FirmwarePort.ts"

const isOneOf4K = (type: number): boolean =>
  type === PAGE_TYPE.VMSA || type === PAGE_TYPE.SECRETS || type === PAGE_TYPE.CPUID

/** The entry that rules a page: its own, or that of the 2 MiB page it lies in. */
const rulingEntry = (rmp: Rmp, pfn: number): RmpEntry => {
  const head = rmp.entry(pfn - (pfn % PAGES_PER_2M))
  return head.assigned && head.size !== PAGE_4K ? head : rmp.entry(pfn)
}

const launchUpdate = (rmp: Rmp, pfn: number, { pageType, asid, size, masks }: PageLaunch): Status => {
  if (rmp.stateOf(pfn) !== "Pre-Guest") return "INVALID_PAGE_STATE"
  const entry = rulingEntry(rmp, pfn)
  if (entry.size !== size) return "INVALID_PAGE_SIZE"
  if (size !== PAGE_4K && pfn % PAGES_PER_2M !== 0) return "INVALID_ADDRESS"
  if (isOneOf4K(pageType) && size !== PAGE_4K) return "INVALID_PAGE_SIZE"
  if (entry.asid !== asid) return "INVALID_PAGE_OWNER"
  rmp.firmwareSet(pfn, {
    perms: [entry.perms[0], ...masks],
    ...(pageType === PAGE_TYPE.VMSA ? { vmsa: true } : {}),
    validated: true,
    immutable: false
  })
  return "SUCCESS"
}

const pageReclaim = (rmp: Rmp, pfn: number): Status => {
  const head = pfn - (pfn % PAGES_PER_2M)
  const first = rulingEntry(rmp, pfn).size === PAGE_4K ? pfn : head
  switch (rmp.stateOf(pfn)) {
    case "Firmware":
    case "Metadata":
      rmp.firmwareSet(first, { immutable: false, gfn: 0, vmsa: false })
      return "SUCCESS"
    case "Pre-Guest":
    case "Pre-Swap":
      rmp.firmwareSet(first, { immutable: false })
      return "SUCCESS"
    case "Hypervisor":
    case "Reclaim":
    case "Guest-Invalid":
    case "Guest-Valid":
      return "SUCCESS"
    default:
      return "INVALID_PAGE_STATE"
  }
}

/**
 * The commands that hand pages to a guest and take them back, on page states alone. Those that move pages, make
 * metadata or join pages answer UNSUPPORTED.
 * @spec SNP-ABI GCTX_CREATE, DECOMMISSION, LAUNCH_UPDATE, PAGE_RECLAIM
 */
export const traceFirmware = (rmp: Rmp): FirmwarePort => ({
  gctxCreate(pfn) {
    if (rmp.stateOf(pfn) !== "Firmware") return "INVALID_PAGE_STATE"
    if (rulingEntry(rmp, pfn).size !== PAGE_4K) return "INVALID_PAGE_SIZE"
    rmp.firmwareSet(pfn, { vmsa: true })
    return "SUCCESS"
  },
  decommission(pfn) {
    if (rmp.stateOf(pfn) !== "Context") return "INVALID_GUEST"
    rmp.firmwareSet(pfn, { vmsa: false })
    return "SUCCESS"
  },
  launchUpdate: (pfn, launch) => launchUpdate(rmp, pfn, launch),
  pageReclaim: (pfn) => pageReclaim(rmp, pfn),
  pageUnsmash: () => "UNSUPPORTED",
  pageSetState: () => "UNSUPPORTED",
  mdInit: () => "UNSUPPORTED",
  pageMove: () => "UNSUPPORTED",
  swapOut: () => "UNSUPPORTED",
  swapIn: () => "UNSUPPORTED"
})
