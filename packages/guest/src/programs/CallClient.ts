import { TERMINATE, toNumber, VMSA } from "@vmpl-lab/sev-es"
import { type OutsidePort, type Program, readBytes, readRegister, writeBytes } from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
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
  if (apicId === 0) yield* acceptPages(svsm, block)
  plan.report.ready(apicId)
  let report: ClientReport | null = null
  while (apicId === 0) {
    const { job }: { readonly job: ClientJob | null } = yield* port.ask(report)
    if (job === null) break
    report = yield* job.kind === "tpm" ? tpmJob(svsm, block, job) : callJob(svsm, job)
    plan.report.called(apicId, job.kind === "tpm" ? PROTOCOL.VTPM : job.protocol, report.result)
  }
  plan.report.done(apicId)
}

function* acceptPages(svsm: SvsmCaller, block: number): Program {
  const entries = Array.from({ length: CLIENT_PAGES.COUNT }, (_, page) => ({
    gpa: block + CLIENT_PAGES.FIRST + page * 0x1000,
    validate: true
  }))
  yield writeBytes(block + BLOCK.LIST, pvalidateList(entries))
  const accepted = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: block + BLOCK.LIST })
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
  svsm: SvsmCaller,
  { protocol, call, registers, writes, reads }: Extract<ClientJob, { kind: "call" }>
): Program<ClientReport> {
  for (const { gpa, bytes } of writes) yield writeBytes(gpa, bytes)
  const begin = yield* now()
  const result = yield* svsm.call(protocol, call, registers)
  const ns = (yield* now()) - begin
  const isRemapped = protocol === PROTOCOL.CORE && call === CORE_CALL.REMAP_CA && result === SVSM_RESULT.SUCCESS
  if (isRemapped) svsm.caGpa = registers.rcx ?? 0
  const rcx = yield* register(VMSA.rcx)
  const rdx = yield* register(VMSA.rdx)
  const r8 = yield* register(VMSA.r8)
  for (const { gpa, bytes } of reads) yield readBytes(gpa, bytes)
  return { result, ns, rcx, rdx, r8, response: NO_BYTES }
}

function* register(offset: number): Program<number> {
  const { lo, hi } = yield readRegister(offset)
  return toNumber(lo, hi)
}
