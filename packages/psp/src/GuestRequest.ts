import { PAGE_4K } from "@vmpl-lab/rmp"
import {
  AEAD_AES_256_GCM,
  GUEST_MESSAGE_HEADER_SIZE,
  GUEST_MESSAGE_HEADER_VERSION,
  type GuestMessageHeader,
  MESSAGE_TYPE,
  openMessage,
  PAGE_SIZE,
  readMessageHeader,
  sealMessage
} from "@vmpl-lab/sev-es"
import { answerCpuid } from "./CpuidMessage.ts"
import type { GuestContext } from "./GuestContext.ts"
import { answerKey } from "./KeyMessage.ts"
import type { MessageAnswer, MessageScene } from "./MessageScene.ts"
import { answerAbsorb, answerAbsorbNoma, answerExport, answerImport } from "./MigrationMessages.ts"
import { isOwnFrame, type PageCheck, rulingEntry, stateIn } from "./PageChecks.ts"
import type { PlatformIdentity } from "./PlatformIdentity.ts"
import type { PspMemory } from "./Ports.ts"
import { answerReport } from "./ReportMessage.ts"
import type { Status } from "./Status.ts"
import { answerTscInfo } from "./TscInfoMessage.ts"
import { answerVmrk } from "./VmrkMessage.ts"

/** SNP_GUEST_REQUEST: frames of the guest context and of the pages with the request and for the reply. */
export interface GuestRequest {
  readonly gctx: number
  readonly requestPfn: number
  readonly responsePfn: number
  /** Where in its page the request begins: the command has addresses, not frames. Default: 0. */
  readonly requestOffset?: number
  readonly responseOffset?: number
}

/** What the command asks of the pages, before it looks at the guest. @spec SNP-ABI SNP_GUEST_REQUEST */
export const GUEST_REQUEST_PAGES: ReadonlyArray<PageCheck<GuestRequest>> = [
  {
    name: "no page is part of the RMP",
    refuses: ({ rmp }, { gctx, requestPfn, responsePfn }) =>
      [gctx, requestPfn, responsePfn].some((pfn) => isOwnFrame(rmp, pfn)) ? "INVALID_PARAM" : null
  },
  stateIn("guest context is Context", ({ gctx }) => gctx, ["Context"], "INVALID_GUEST"),
  stateIn("response page is Firmware", ({ responsePfn }) => responsePfn, ["Firmware"], "INVALID_PAGE_STATE"),
  {
    // @spec-silent a request page that the RMP does not cover: it passes, where published firmware tests stale memory
    name: "request and response page have 4 KiB",
    refuses: ({ rmp }, { requestPfn, responsePfn }) =>
      [requestPfn, responsePfn].every((pfn) => rulingEntry(rmp, pfn).size === PAGE_4K) ? null : "INVALID_PAGE_SIZE"
  }
]

/** One check of a header that has been read: all of them refuse with INVALID_PARAM. */
interface HeaderCheck {
  readonly name: string
  readonly refuses: (header: GuestMessageHeader, offset: number) => boolean
}

/** What the command asks of a message before it decrypts it. @spec SNP-ABI SNP_GUEST_REQUEST */
export const GUEST_REQUEST_HEADER: ReadonlyArray<HeaderCheck> = [
  { name: "header version is 1", refuses: ({ headerVersion }) => headerVersion !== GUEST_MESSAGE_HEADER_VERSION },
  { name: "header size is 0x60", refuses: ({ headerSize }) => headerSize !== GUEST_MESSAGE_HEADER_SIZE },
  { name: "algorithm is AES-256-GCM", refuses: ({ algorithm }) => algorithm !== AEAD_AES_256_GCM },
  { name: "payload has whole blocks, at least one", refuses: ({ size }) => size === 0 || size % 16 !== 0 },
  {
    name: "payload ends in the page",
    refuses: ({ size }, offset) => offset + GUEST_MESSAGE_HEADER_SIZE + size > PAGE_SIZE
  },
  { name: "VMPCK is one of four", refuses: ({ vmpck }) => vmpck > 3 }
]

/** Highest version of a message and of its reply. */
const MESSAGE_VERSION = 1

/** Firmware that reports mitigations takes them in key requests too. */
const versionMax = (type: number, { reportVersion }: PlatformIdentity): number =>
  type === MESSAGE_TYPE.KEY_REQ && reportVersion >= 5 ? 2 : MESSAGE_VERSION

/** A count from which no request and reply could be numbered any more. */
const COUNT_LAST = 2n ** 64n - 2n

const ANSWERS = new Map<number, MessageAnswer>([
  [MESSAGE_TYPE.CPUID_REQ, answerCpuid],
  [MESSAGE_TYPE.KEY_REQ, answerKey],
  [MESSAGE_TYPE.REPORT_REQ, answerReport],
  [MESSAGE_TYPE.EXPORT_REQ, answerExport],
  [MESSAGE_TYPE.IMPORT_REQ, answerImport],
  [MESSAGE_TYPE.ABSORB_REQ, answerAbsorb],
  [MESSAGE_TYPE.VMRK_REQ, answerVmrk],
  [MESSAGE_TYPE.ABSORB_NOMA_REQ, answerAbsorbNoma],
  [MESSAGE_TYPE.TSC_INFO_REQ, answerTscInfo]
])

/** The command after the checks of pages and context. */
export interface GuestRequestRun {
  readonly memory: PspMemory
  readonly command: GuestRequest
  readonly guest: GuestContext
  readonly platform: PlatformIdentity
  readonly sceneOf: (vmpck: number, version: number) => MessageScene
}

/** The frame of a request in its page, or null where it is none that could be decrypted. */
const requestFrame = (page: Uint8Array, offset: number): Uint8Array | null => {
  if (offset > PAGE_SIZE - GUEST_MESSAGE_HEADER_SIZE) return null
  const header = readMessageHeader(page.subarray(offset, offset + GUEST_MESSAGE_HEADER_SIZE))
  if (GUEST_REQUEST_HEADER.some(({ refuses }) => refuses(header, offset))) return null
  return page.slice(offset, offset + GUEST_MESSAGE_HEADER_SIZE + header.size)
}

/**
 * Decrypts the message, answers it and writes the reply. A status here is the hypervisor's: the guest's own mistakes are
 * told in the reply, which then counts as every other does. Each VMPCK counts for itself: the request has the next
 * number, the reply the one after, so requests are odd and a number is never used twice. A refused command writes
 * nothing and counts nothing; only when it is the reply that does not fit has the message been acted upon before.
 * @spec SNP-ABI SNP_GUEST_REQUEST
 */
export const runGuestRequest = ({ memory, command, guest, platform, sceneOf }: GuestRequestRun): Status => {
  if (guest.state !== "RUNNING") return "INVALID_GUEST_STATE"
  const frame = requestFrame(memory.readPlain(command.requestPfn), command.requestOffset ?? 0)
  if (frame === null) return "INVALID_PARAM"
  const { sequence, type, version, size, vmpck } = readMessageHeader(frame)
  const key = guest.vmpck[vmpck]!
  const count = guest.messageCount[vmpck]!
  const opened = openMessage(key, frame)
  if (opened === null) return "BAD_MEASUREMENT"
  if (count === COUNT_LAST || sequence !== count + 1n) return "AEAD_OFLOW"
  const answer = ANSWERS.get(type)
  if (version === 0 || version > versionMax(type, platform) || answer === undefined) return "INVALID_PARAM"
  const payload = new Uint8Array(PAGE_SIZE)
  payload.set(opened)
  const reply = answer(sceneOf(vmpck, version), payload, size)
  const offset = command.responseOffset ?? 0
  if (offset + GUEST_MESSAGE_HEADER_SIZE + reply.length > PAGE_SIZE) return "INVALID_PARAM"
  const label = { sequence: sequence + 1n, type: type + 1, version: MESSAGE_VERSION, vmpck }
  guest.messageCount[vmpck] = count + 2n
  const page = memory.readPlain(command.responsePfn).slice()
  page.set(sealMessage(key, label, reply), offset)
  memory.writePlain(command.responsePfn, page)
  return "SUCCESS"
}
