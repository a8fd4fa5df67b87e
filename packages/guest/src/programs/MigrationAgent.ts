import { AP_CREATION, PAGE_SIZE, TERMINATE, toNumber, VMSA } from "@vmpl-lab/sev-es"
import { type OutsidePort, type Program, readBytes, readRegister, work, write, writeBytes } from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
import { ghcbOut } from "../ghcb/PortIo.ts"
import { MIGRATION_CALL, MIGRATION_PROTOCOL, RESUME_ENTRY } from "../MigrationCall.ts"
import { makeShared, terminate } from "../MsrProtocol.ts"
import { type PvalidateEntry, pvalidateCapacity, pvalidateList } from "../PvalidateList.ts"
import { CORE_CALL, PROTOCOL, SVSM_RESULT, SvsmCaller } from "../SvsmCall.ts"
import { BLOCK, blockOf, type GuestBody, type GuestPlan } from "./GuestPlan.ts"
import { now } from "./Pace.ts"

/** Whole pages of guest memory. */
export interface PageRange {
  readonly gpa: number
  readonly pages: number
}

/** What the VMM has the agent do next. */
export interface AgentCommand {
  readonly kind:
    | "hello"
    | "peer"
    | "start"
    | "mark"
    | "export"
    | "stop"
    | "export-state"
    | "import"
    | "import-state"
    | "resume"
    | "wait"
    | "end"
  /** Bytes in the buffer; of hello the role, of start the flags, of export the most pages. */
  readonly value: number
  /** Virtual ns that the VMM takes before the agent goes on: it waits for the link, or works. */
  readonly waitNs: number
}

/**
 * What became of it. `ns` is the agent's time by its TSC when it had been done, `callNs` what of it the SVSM's call took, from
 * before it to after it.
 */
export interface AgentReply {
  readonly result: number
  readonly rcx: number
  readonly rdx: number
  readonly r8: number
  readonly ns: number
  readonly callNs: number
}

export type AgentPort = OutsidePort<AgentReply, AgentCommand>

/** What an agent works with. */
export interface AgentPlan {
  readonly port: AgentPort
  /** Shared pages through which the host gets and gives what is sealed. */
  readonly buffer: PageRange
  /** Memory that is accepted before the guest's work begins: none on a machine that a guest comes to. */
  readonly accepts: PageRange
}

/** Port at which the VMM hears of each reply. Nothing is emulated there. */
export const MIGRATION_DOORBELL = 0x4d4

/** Page of the agent's by which it tells the other vCPUs to begin and to stop. */
export const migrationControl = (plan: GuestPlan): { readonly go: number; readonly stop: number } => {
  const page = blockOf(plan, 0) + BLOCK.OTHER_CALLING_AREA
  return { go: page, stop: page + 8 }
}

const NOTHING: AgentReply = { result: SVSM_RESULT.SUCCESS, rcx: 0, rdx: 0, r8: 0, ns: 0, callNs: 0 }

/**
 * The first vCPU of a guest that moves: it stands between the VMM, which decides what comes next, and the SVSM, which
 * alone sees the guest's memory and keys. The agent handles sealed bytes only.
 */
export const migrationAgent =
  (agent: AgentPlan): GuestBody =>
  (plan, _apicId, caGpa) =>
    run(agent, plan, caGpa)

function* run({ port, buffer, accepts }: AgentPlan, plan: GuestPlan, caGpa: number): Program {
  const ghcb = new Ghcb(blockOf(plan, 0) + BLOCK.GHCB)
  const svsm = new SvsmCaller(caGpa, plan.ring, ghcb)
  const control = migrationControl(plan)
  yield* acceptPages(plan, svsm, accepts)
  for (let page = 0; page < buffer.pages; page++) {
    if (!(yield* makeShared(buffer.gpa + page * PAGE_SIZE))) yield* terminate(TERMINATE.PSC)
  }
  yield* ghcb.use()
  yield write(control.go, 8, 1)
  plan.report.ready(0)
  let reply = { ...NOTHING, ns: yield* now() }
  for (;;) {
    yield* ghcbOut(ghcb, MIGRATION_DOORBELL, 4, 1)
    const command: AgentCommand = yield* port.ask(reply)
    if (command.waitNs > 0) yield work(command.waitNs)
    if (command.kind === "end") break
    if (command.kind === "stop") yield write(control.stop, 8, 1)
    const done = command.kind === "wait" ? NOTHING : yield* call(plan, svsm, buffer, command)
    plan.report.called(0, MIGRATION_PROTOCOL, done.result)
    if (command.kind === "resume" && done.result === SVSM_RESULT.SUCCESS) {
      yield write(control.stop, 8, 0)
      yield* startVcpus(plan, ghcb, done.rdx)
    }
    reply = { ...done, ns: yield* now() }
  }
  plan.report.done(0)
}

function* acceptPages(plan: GuestPlan, svsm: SvsmCaller, { gpa, pages }: PageRange): Program {
  const list = blockOf(plan, 0) + BLOCK.LIST
  const capacity = pvalidateCapacity(0)
  for (let first = 0; first < pages; first += capacity) {
    const entries: ReadonlyArray<PvalidateEntry> = Array.from(
      { length: Math.min(capacity, pages - first) },
      (_, i) => ({
        gpa: gpa + (first + i) * PAGE_SIZE,
        validate: true
      })
    )
    yield writeBytes(list, pvalidateList(entries))
    const result = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: list })
    if (result !== SVSM_RESULT.SUCCESS) yield* terminate(TERMINATE.PVALIDATE)
  }
}

/** The SVSM's part of a command: addresses are the agent's own, never the host's. */
function* call(
  plan: GuestPlan,
  svsm: SvsmCaller,
  buffer: PageRange,
  { kind, value }: AgentCommand
): Program<Omit<AgentReply, "ns">> {
  const room = buffer.pages * PAGE_SIZE
  const own = blockOf(plan, 0)
  const filled = { rcx: buffer.gpa, rdx: value }
  const calls = {
    hello: [MIGRATION_CALL.HELLO, { rcx: buffer.gpa, rdx: room, r8: value }],
    peer: [MIGRATION_CALL.PEER, filled],
    start: [MIGRATION_CALL.START, { rcx: own, rdx: BLOCK.SIZE, r8: value }],
    mark: [MIGRATION_CALL.MARK, filled],
    export: [MIGRATION_CALL.EXPORT, { rcx: buffer.gpa, rdx: room, r8: value }],
    stop: [MIGRATION_CALL.STOP, {}],
    "export-state": [MIGRATION_CALL.EXPORT_STATE, { rcx: buffer.gpa, rdx: room }],
    import: [MIGRATION_CALL.IMPORT, filled],
    "import-state": [MIGRATION_CALL.IMPORT_STATE, filled],
    resume: [MIGRATION_CALL.RESUME, { rcx: own + BLOCK.LIST }]
  } as const
  const [number, registers] = calls[kind as keyof typeof calls]
  const begin = yield* now()
  const result = yield* svsm.call(MIGRATION_PROTOCOL, number, registers)
  const callNs = (yield* now()) - begin
  return {
    result,
    callNs,
    rcx: yield* register(VMSA.rcx),
    rdx: yield* register(VMSA.rdx),
    r8: yield* register(VMSA.r8)
  }
}

function* register(offset: number): Program<number> {
  const { lo, hi } = yield readRegister(offset)
  return toNumber(lo, hi)
}

/** Asks the host to run the vCPUs of RESUME's list. */
function* startVcpus(plan: GuestPlan, ghcb: Ghcb, count: number): Program {
  const bytes = new Uint8Array(count * RESUME_ENTRY.SIZE)
  yield readBytes(blockOf(plan, 0) + BLOCK.LIST, bytes)
  const view = new DataView(bytes.buffer)
  for (let entry = 0; entry < bytes.length; entry += RESUME_ENTRY.SIZE) {
    const word = (field: number): number => view.getUint32(entry + field, true)
    const long = (field: number): number => toNumber(word(field), word(field + 4))
    const [apicId, vmpl] = [word(RESUME_ENTRY.apicId), word(RESUME_ENTRY.vmpl)]
    const [vmsaGpa, features] = [long(RESUME_ENTRY.vmsaGpa), long(RESUME_ENTRY.sevFeatures)]
    if (!(yield* ghcb.apCreation(AP_CREATION.CREATE, vmpl, apicId, vmsaGpa, features)))
      yield* terminate(TERMINATE.GENERAL)
  }
}
