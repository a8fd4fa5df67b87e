import {
  acceptBuffers,
  BLOCK,
  blockOf,
  CALLING_AREA,
  CLIENT_PAGES,
  CORE_CALL,
  Ghcb,
  type GuestBody,
  type GuestPlan,
  LEVEL_BLOCK,
  levelBlockOf,
  now,
  PROTOCOL,
  pvalidateList,
  readLevelRequest,
  ringLevel,
  SVSM_RESULT,
  SvsmCaller,
  startLowerLevels,
  terminate,
  vcHandler,
  writeLevelReply
} from "@vmpl-lab/guest"
import { PERMISSION } from "@vmpl-lab/rmp"
import { EXIT, PAGE_SIZE, TERMINATE } from "@vmpl-lab/sev-es"
import {
  lidt,
  type Operation,
  type Program,
  readBytes,
  rmpadjust,
  rmpquery,
  type VcHandler,
  work,
  writeBytes
} from "@vmpl-lab/vmpl"
import { copyNs, lengthInPage } from "./GuestBuffer.ts"
import type { ServeCall, ServiceRequest } from "./HandledService.ts"
import type { ServiceAccess } from "./ServiceAccess.ts"

/** Pages for secrets, as an offset from the vCPU's block: RAM that nothing else uses. */
const HEAP = { FIRST: 0x10_0000, PAGES: 64 } as const

/** What a program at VMPL1 serves to the level below it. */
export interface LevelOneServices {
  readonly clientVmpl: number
  /** By protocol. */
  readonly calls: ReadonlyMap<number, ServeCall>
}

/**
 * VMPL1 as the home of services, which may adjust the rights of the levels below it and cannot validate: it boots, brings up its client's level, and from then on serves each call that the
 * client leaves in their page and rings for.
 */
export const levelOneServices =
  (services: LevelOneServices): GuestBody =>
  (plan, apicId, caGpa) =>
    serveLevel(services, plan, apicId, caGpa)

function* serveLevel(services: LevelOneServices, plan: GuestPlan, apicId: number, caGpa: number): Program {
  const { clientVmpl } = services
  const block = blockOf(plan, apicId)
  const ghcb = new Ghcb(block + BLOCK.GHCB)
  const svsm = new SvsmCaller(caGpa, plan.ring, ghcb)
  yield* startLowerLevels(plan, apicId, svsm)
  yield* giveBuffers(svsm, block, clientVmpl)
  const access = new LevelOneAccess(svsm, block)
  yield lidt(access.vc)
  plan.report.up?.(apicId, yield* now())
  const area = levelBlockOf(plan, apicId, clientVmpl) + LEVEL_BLOCK.SERVICE
  for (;;) {
    yield* ringLevel({ ghcb, ring: plan.ring }, clientVmpl)
    const request = yield* readLevelRequest(area)
    if (request.isEnd) break
    if (!request.isPending) continue
    const [rcxLo, rcxHi, rdxLo, rdxHi, r8Lo, r8Hi] = request.words as [number, number, number, number, number, number]
    const own: ServiceRequest = {
      call: request.call,
      vmpl: clientVmpl,
      apicId,
      ...{ rcxLo, rcxHi, rdxLo, rdxHi, r8Lo, r8Hi }
    }
    const serve = services.calls.get(request.protocol)
    const result = serve === undefined ? SVSM_RESULT.UNSUPPORTED_PROTOCOL : yield* serve(access, own)
    yield* writeLevelReply(area, [own.rcxLo, own.rcxHi, own.rdxLo, own.rdxHi, own.r8Lo, own.r8Hi], result)
  }
  plan.report.done(apicId)
}

/** The client's buffers: validated for VMPL1, which shares them with the client's level. */
function* giveBuffers(svsm: SvsmCaller, block: number, vmpl: number): Program {
  yield* acceptBuffers(svsm, block, block + BLOCK.LIST)
  for (let page = 0; page < CLIENT_PAGES.COUNT; page++) {
    const { lo } = yield rmpadjust(block + CLIENT_PAGES.FIRST + page * PAGE_SIZE, vmpl, PERMISSION.ALL, false)
    if (lo !== 0) yield* terminate(TERMINATE.GENERAL)
  }
}

/**
 * What VMPL1 can reach. Which of the guest's memory is validated VMPL0 alone knows, so that only pages are served that
 * VMPL1 has given to its client itself, as long as the RMP says that the client may write them. The client may have the
 * SVSM rescind one behind its back: the #VC that follows ends the access, not the program.
 */
class LevelOneAccess implements ServiceAccess {
  readonly #svsm: SvsmCaller
  readonly #block: number
  #taken = 0
  /** An access since this was last cleared has met a page that is not validated. */
  #isGone = false

  constructor(svsm: SvsmCaller, block: number) {
    this.#svsm = svsm
    this.#block = block
  }

  /** #VC: a page that is gone leaves the instruction without effect. */
  readonly vc: VcHandler = (errorCode, operation, result) => {
    if (errorCode !== EXIT.PAGE_NOT_VALIDATED) return vcHandler(errorCode, operation, result)
    this.#isGone = true
    return nothing()
  };

  *isCallersBuffer(vmpl: number, gpa: number, size: number): Program<boolean> {
    const first = this.#block + CLIENT_PAGES.FIRST
    if (gpa < first || gpa + size > first + CLIENT_PAGES.COUNT * PAGE_SIZE) return false
    for (let page = gpa - (gpa % PAGE_SIZE); page < gpa + size; page += PAGE_SIZE) {
      this.#isGone = false
      const { lo, edx } = yield rmpquery(page, vmpl)
      if (this.#isGone || lo !== 0 || ((edx >>> 8) & PERMISSION.WRITE) === 0) return false
    }
    return true
  }

  read(gpa: number, into: Uint8Array): Program<boolean> {
    return this.#copy(gpa, into, readBytes)
  }

  write(gpa: number, from: Uint8Array): Program<boolean> {
    return this.#copy(gpa, from, writeBytes)
  }

  *#copy(gpa: number, bytes: Uint8Array, operation: (at: number, part: Uint8Array) => Operation): Program<boolean> {
    this.#isGone = false
    for (let at = 0; at < bytes.length; ) {
      const length = lengthInPage(gpa, bytes.length, at)
      yield work(copyNs(length))
      yield operation(gpa + at, bytes.subarray(at, at + length))
      if (this.#isGone) return false
      at += length
    }
    return true
  }

  /** A page of VMPL1's own, through the SVSM, which grants it to no less privileged level. */
  *allocate(): Program<number | null> {
    if (this.#taken === HEAP.PAGES) return null
    const gpa = this.#block + HEAP.FIRST + this.#taken++ * PAGE_SIZE
    const list = this.#svsm.caGpa + CALLING_AREA.SIZE
    yield writeBytes(list, pvalidateList([{ gpa, validate: true }]))
    const result = yield* this.#svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: list })
    return result === SVSM_RESULT.SUCCESS ? gpa : null
  }

  /** The key of VMPL0 is not VMPL1's to use. */
  // biome-ignore lint/correctness/useYield: an answer without a step
  *firmware(): Program<Uint8Array | null> {
    return null
  }
}

function* nothing(): Program {}
