import { PAGE_SIZE, TERMINATE, VMSA } from "@vmpl-lab/sev-es"
import {
  lidt,
  type Program,
  pause,
  read,
  readRegister,
  recordedSequence,
  sequence,
  work,
  write,
  writeBytes,
  writeRegister
} from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
import { MIGRATION_CALL, MIGRATION_PROTOCOL } from "../MigrationCall.ts"
import { terminate } from "../MsrProtocol.ts"
import { pvalidateList } from "../PvalidateList.ts"
import { CORE_CALL, PROTOCOL, SVSM_RESULT, SvsmCaller } from "../SvsmCall.ts"
import { vcHandler } from "../VcHandler.ts"
import { AP_TRAMPOLINE_GPA, BLOCK, blockOf, type GuestPlan } from "./GuestPlan.ts"
import { migrationControl, type PageRange } from "./MigrationAgent.ts"
import { now } from "./Pace.ts"

/** What the writing vCPUs do. */
export interface WriterPlan {
  /** Pages that all of them write to, each at places of its own. */
  readonly data: PageRange
  /** Virtual ns of other work between two writes. */
  readonly paceNs: number
  /** After so many writes a vCPU has the SVSM validate or rescind a page of its own, in turn; 0: never. */
  readonly callEvery: number
  /** Seed of each vCPU's order of pages, not 0. */
  readonly seed: (apicId: number) => number
  /** Writes that a vCPU makes unless it is moved; at most 2^32 - 1, which is never. */
  readonly writes: (apicId: number) => number
  /** Writes after it has gone on. */
  readonly writesAfter: number
  /** Observer: 4 bytes were written. */
  readonly wrote: (apicId: number, gpa: number, value: number) => void
  /** Observer: the last instruction before a vCPU parks, and the first when it goes on, by its TSC in ns. */
  readonly parks: (apicId: number, ns: number) => void
  readonly resumes: (apicId: number, ns: number) => void
}

/** Linear address at which a parked writer goes on. */
export const WRITER_RESUME = AP_TRAMPOLINE_GPA + 0x800

const WORD = 8
/** Where a writer keeps its state: all of it is in these registers and in memory. */
const STEP = VMSA.rbx
const RANDOM = VMSA.rsi
const LIMIT = VMSA.r14
const CALLS = VMSA.r12
const APIC_ID = VMSA.rdi

/** Words of a page that are one vCPU's: every so many bytes one. */
const offsetOf = (plan: GuestPlan, apicId: number, random: number): number => {
  const slots = Math.floor(PAGE_SIZE / WORD / plan.vcpus)
  return ((random % slots) * plan.vcpus + apicId) * WORD
}

/** Xorshift of 32 bits: never 0. */
const nextRandom = (x: number): number => {
  let y = x ^ (x << 13)
  y ^= y >>> 17
  y ^= y << 5
  return y >>> 0
}

/** A vCPU that writes to memory, from the agent's sign on. */
export function* migrationWriter(writer: WriterPlan, plan: GuestPlan, apicId: number): Program {
  const { go } = migrationControl(plan)
  while ((yield read(go, 8)).lo === 0) yield pause(16)
  yield sequence([
    writeRegister(APIC_ID, apicId),
    writeRegister(STEP, 0),
    writeRegister(CALLS, 0),
    writeRegister(RANDOM, writer.seed(apicId)),
    writeRegister(LIMIT, writer.writes(apicId))
  ])
  plan.report.ready(apicId)
  yield* makeWrites(writer, plan, apicId)
}

/**
 * What CS:RIP of a parked writer's VMSA leads to. Its GHCB is an agreement with a host, which may be another one now: it
 * is made again.
 */
export function* resumedWriter(writer: WriterPlan, plan: GuestPlan): Program {
  const begin = yield* now()
  yield lidt(vcHandler)
  const apicId = (yield readRegister(APIC_ID)).lo
  writer.resumes(apicId, begin)
  yield* new Ghcb(blockOf(plan, apicId) + BLOCK.GHCB).setUp()
  const { lo: step } = yield readRegister(STEP)
  yield writeRegister(LIMIT, step + writer.writesAfter)
  plan.report.ready(apicId)
  yield* makeWrites(writer, plan, apicId)
}

/** Each step begins with what registers and memory say, and ends with all of it there: a parked vCPU is its VMSA. */
function* makeWrites(writer: WriterPlan, plan: GuestPlan, apicId: number): Program {
  const svsm = new SvsmCaller(blockOf(plan, apicId) + BLOCK.CALLING_AREA, "msr", null)
  const { stop } = migrationControl(plan)
  const { gpa, pages } = writer.data
  const state = recordedSequence([
    readRegister(STEP),
    readRegister(RANDOM),
    readRegister(LIMIT),
    readRegister(CALLS),
    read(stop, 8)
  ])
  for (;;) {
    yield state
    const [step, , random, , limit, , calls, , stopped] = state.outcomes as unknown as ReadonlyArray<number>
    if (stopped !== 0) {
      writer.parks(apicId, yield* now())
      // Refused before a migration has begun: then the vCPU goes on.
      yield* svsm.call(MIGRATION_PROTOCOL, MIGRATION_CALL.PARK, { rcx: WRITER_RESUME - AP_TRAMPOLINE_GPA })
    }
    if (step === limit) break
    const next = nextRandom(random!)
    const address = gpa + (next % pages) * PAGE_SIZE + offsetOf(plan, apicId, next >>> 12)
    const { lo: old } = yield read(address, 4)
    const value = (Math.imul(old, 31) + next + step!) >>> 0
    yield write(address, 4, value)
    writer.wrote(apicId, address, value)
    if (isWritten(calls!)) yield write(blockOf(plan, apicId) + BLOCK.TOGGLED, 4, step!)
    yield sequence([writeRegister(RANDOM, next), writeRegister(STEP, step! + 1)])
    if (writer.callEvery > 0 && step! % writer.callEvery === 0) yield* toggle(plan, apicId, svsm)
    if (writer.paceNs > 0) yield work(writer.paceNs)
  }
  plan.report.done(apicId)
}

/** The vCPU's own page is there, and this is the time of two that it is written to. */
const isWritten = (calls: number): boolean => calls % 4 === 1

/**
 * The page is validated, and rescinded with the next call; every other time it is written to in between. What the SVSM
 * clears and what it stores into the list are its own stores, which no right of the guest's level stands against.
 */
function* toggle(plan: GuestPlan, apicId: number, svsm: SvsmCaller): Program {
  const block = blockOf(plan, apicId)
  const page = block + BLOCK.TOGGLED
  const { lo: calls } = yield readRegister(CALLS)
  const validate = calls % 2 === 0
  yield writeBytes(block + BLOCK.LIST, pvalidateList([{ gpa: page, validate }]))
  const result = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: block + BLOCK.LIST })
  if (result !== SVSM_RESULT.SUCCESS) yield* terminate(TERMINATE.PVALIDATE)
  yield writeRegister(CALLS, calls + 1)
}
