import { TERMINATE } from "@vmpl-lab/sev-es"
import { type OutsidePort, type Program, readBytes, writeBytes } from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
import { type ServiceCaller, svsmService } from "../LevelCall.ts"
import { terminate } from "../MsrProtocol.ts"
import { pvalidateList } from "../PvalidateList.ts"
import { type CallArguments, CORE_CALL, PROTOCOL, SVSM_RESULT, SvsmCaller } from "../SvsmCall.ts"
import { tpmCommand } from "../VtpmDriver.ts"
import { BLOCK, blockOf, type GuestBody, type GuestPlan } from "./GuestPlan.ts"
import { now } from "./Pace.ts"

/** Bytes of the guest's memory. */
export interface GuestBytes {
  readonly gpa: number
  readonly bytes: Uint8Array
}

/** One thing that the guest is to do for whoever uses it. */
export type ClientJob =
  | { readonly kind: "tpm"; readonly command: Uint8Array; readonly locality: number; readonly size: number }
  | {
      readonly kind: "call"
      readonly protocol: number
      readonly call: number
      readonly registers: CallArguments
      /** What it writes before the call, each within a page. */
      readonly writes: ReadonlyArray<GuestBytes>
      /** What it reads after the call, each within a page: the bytes are replaced. */
      readonly reads: ReadonlyArray<GuestBytes>
    }

/** What became of it. `ns` is the guest's own time from before the call to after it, by its TSC. */
export interface ClientReport {
  readonly result: number
  readonly ns: number
  readonly rcx: number
  readonly rdx: number
  readonly r8: number
  /** A TPM's response; empty for other jobs. */
  readonly response: Uint8Array
}

/** Where a guest gets its jobs: it hands over the last one's report (null at first), and takes null as the end. */
export type ClientPort = OutsidePort<ClientReport | null, { readonly job: ClientJob | null }>

/** Pages of the first vCPU's block that a client has the SVSM validate for its buffers, one after the other. */
export const CLIENT_PAGES = { FIRST: BLOCK.TOGGLED, COUNT: 2 } as const

const NO_BYTES = new Uint8Array(0)

/** The first vCPU does what it is asked to from outside of the simulation, one job after the other; others do nothing. */
export const callClient =
  (port: ClientPort): GuestBody =>
  (plan, apicId, caGpa) =>
    client(port, plan, apicId, caGpa)

function* client(port: ClientPort, plan: GuestPlan, apicId: number, caGpa: number): Program {
  const block = blockOf(plan, apicId)
  const svsm = new SvsmCaller(caGpa, plan.ring, new Ghcb(block + BLOCK.GHCB))
  if (apicId === 0) yield* acceptBuffers(svsm, block, block + BLOCK.LIST)
  plan.report.ready(apicId)
  if (apicId === 0) yield* doJobs(port, plan, apicId, { svsm, serviceOf: () => svsmService(svsm) })
  plan.report.done(apicId)
}

/** Whom a client calls. */
export interface ClientHands {
  readonly svsm: SvsmCaller
  /** Who serves a protocol. */
  readonly serviceOf: (protocol: number) => ServiceCaller
}

/** One job after the other, until there are no more. */
export function* doJobs(port: ClientPort, plan: GuestPlan, apicId: number, hands: ClientHands): Program {
  let report: ClientReport | null = null
  for (;;) {
    const { job }: { readonly job: ClientJob | null } = yield* port.ask(report)
    if (job === null) return
    report = yield* job.kind === "tpm" ? tpmJob(hands.svsm, blockOf(plan, apicId), job) : callJob(hands, job)
    plan.report.called(apicId, job.kind === "tpm" ? PROTOCOL.VTPM : job.protocol, report.result)
  }
}

/** Has the SVSM validate the client's buffers, for the level that calls and the more privileged ones. */
export function* acceptBuffers(svsm: SvsmCaller, block: number, list: number): Program {
  const entries = Array.from({ length: CLIENT_PAGES.COUNT }, (_, page) => ({
    gpa: block + CLIENT_PAGES.FIRST + page * 0x1000,
    validate: true
  }))
  yield writeBytes(list, pvalidateList(entries))
  const accepted = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: list })
  if (accepted !== SVSM_RESULT.SUCCESS) yield* terminate(TERMINATE.PVALIDATE)
}

function* tpmJob(
  svsm: SvsmCaller,
  block: number,
  { command, locality, size }: Extract<ClientJob, { kind: "tpm" }>
): Program<ClientReport> {
  const begin = yield* now()
  const { result, response } = yield* tpmCommand(svsm, block + CLIENT_PAGES.FIRST, command, locality, size)
  const ns = (yield* now()) - begin
  return { result, ns, rcx: 0, rdx: 0, r8: 0, response }
}

function* callJob(
  { svsm, serviceOf }: ClientHands,
  { protocol, call, registers, writes, reads }: Extract<ClientJob, { kind: "call" }>
): Program<ClientReport> {
  for (const { gpa, bytes } of writes) yield writeBytes(gpa, bytes)
  const service = serviceOf(protocol)
  const begin = yield* now()
  const result = yield* service.call(protocol, call, registers)
  const ns = (yield* now()) - begin
  const isRemapped = protocol === PROTOCOL.CORE && call === CORE_CALL.REMAP_CA && result === SVSM_RESULT.SUCCESS
  if (isRemapped) svsm.caGpa = registers.rcx ?? 0
  const { rcx, rdx, r8 } = yield* service.replies()
  for (const { gpa, bytes } of reads) yield readBytes(gpa, bytes)
  return { result, ns, rcx, rdx, r8, response: NO_BYTES }
}
