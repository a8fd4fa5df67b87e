// @ghcb msr 0x000
import {
  EVENT_TYPE,
  eventOf,
  GHCB,
  lo32,
  MSR_GHCB,
  REASON,
  REPLY,
  type U64,
  u64,
  VECTOR,
  validByte,
  validMask
} from "@vmpl-lab/sev-es"
import { GuestException, type Program, readShared, vmgexit, writeShared, wrmsr } from "@vmpl-lab/vmpl"

/** The fields of the save area that an event can carry in either direction, besides the exit fields. */
export type RegisterName = "cpl" | "xss" | "dr7" | "rax" | "rbx" | "rcx" | "rdx" | "rsi" | "xcr0"

/** What the guest supplies with an event. The exit code and both info fields always are, zero where not given. */
export interface EventFields extends Readonly<Partial<Record<RegisterName, U64>>> {
  readonly info1?: U64
  readonly info2?: U64
  /** GPA of the scratch area. */
  readonly scratch?: number
}

/** What a caller needs from the reply. */
export type ReplyName = RegisterName | "info2"

/** Why there is no answer: one of REASON, or one of the two below. */
export interface Failure {
  readonly ok: false
  readonly reason: number
  /** REFUSED: sw_exit_info_2, where the event defines what it says. */
  readonly detail?: U64
}

/** The hypervisor broke the protocol. Nothing of its reply was used. */
export const VMM_ERROR = -1

/** The hypervisor says in the event's own way that it has not done it. */
export const REFUSED = -2

export const vmmError: Failure = { ok: false, reason: VMM_ERROR }

/** The answer to an event, or why there is none. */
export type Outcome<T> = { readonly ok: true; readonly value: T } | Failure

/** What was asked for in the reply, by name. */
export type Reply<K extends ReplyName> = { readonly [name in K]: U64 }

const OFFSET: { readonly [name in RegisterName]: number } = {
  cpl: GHCB.cpl,
  xss: GHCB.xss,
  dr7: GHCB.dr7,
  rax: GHCB.rax,
  rbx: GHCB.rbx,
  rcx: GHCB.rcx,
  rdx: GHCB.rdx,
  rsi: GHCB.rsi,
  xcr0: GHCB.xcr0
}

const EXIT_OFFSETS = [GHCB.sw_exit_code, GHCB.sw_exit_info_1, GHCB.sw_exit_info_2]
const ZERO: U64 = { lo: 0, hi: 0 }

/** Clears the valid bitmap: what an earlier event supplied is not part of the next one. */
export function* clearBitmap(gpa: number): Program {
  yield writeShared(gpa + GHCB.valid_bitmap, 8, 0)
  yield writeShared(gpa + GHCB.valid_bitmap + 8, 8, 0)
}

/** Fills the page for one event and points the GHCB MSR at it; what is left is VMGEXIT. */
export function* fillPage(gpa: number, version: number, code: number, fields: EventFields): Program {
  yield* clearBitmap(gpa)
  const bitmap = new Uint8Array(16)
  const mark = (offset: number): void => {
    bitmap[validByte(offset) - GHCB.valid_bitmap]! |= validMask(offset)
  }
  for (const offset of EXIT_OFFSETS) mark(offset)
  const { info1 = ZERO, info2 = ZERO, scratch } = fields
  yield writeShared(gpa + GHCB.protocol_version, 2, version)
  yield writeShared(gpa + GHCB.ghcb_usage, 4, 0)
  yield writeShared(gpa + GHCB.sw_exit_code, 8, code, code < 0 ? 0xffff_ffff : 0)
  yield writeShared(gpa + GHCB.sw_exit_info_1, 8, info1.lo, info1.hi)
  yield writeShared(gpa + GHCB.sw_exit_info_2, 8, info2.lo, info2.hi)
  if (scratch !== undefined) {
    mark(GHCB.sw_scratch)
    const { lo, hi } = u64(scratch)
    yield writeShared(gpa + GHCB.sw_scratch, 8, lo, hi)
  }
  for (const name of Object.keys(OFFSET) as Array<RegisterName>) {
    const value = fields[name]
    if (value === undefined) continue
    mark(OFFSET[name])
    yield writeShared(gpa + OFFSET[name], name === "cpl" ? 1 : 8, value.lo, value.hi)
  }
  const words = new DataView(bitmap.buffer)
  const word = (offset: number): number => words.getUint32(offset, true)
  yield writeShared(gpa + GHCB.valid_bitmap, 8, word(0), word(4))
  yield writeShared(gpa + GHCB.valid_bitmap + 8, 8, word(8), word(12))
  const { lo, hi } = u64(gpa)
  yield wrmsr(MSR_GHCB, lo, hi)
}

/**
 * One event from the first byte to the last check of the reply, on a page that nobody else uses meanwhile. Each field of
 * the reply is read once, and only after the hypervisor's valid bit for it was seen.
 * @spec GHCB "error reporting"; Linux verify_exception_info
 */
export function* exchange<K extends ReplyName>(
  gpa: number,
  version: number,
  code: number,
  fields: EventFields,
  returns: ReadonlyArray<K>
): Program<Outcome<Reply<K>>> {
  yield* fillPage(gpa, version, code, fields)
  yield vmgexit()
  const outcome = (yield readShared(gpa + GHCB.sw_exit_info_1, 4)).lo
  const { lo, hi } = yield readShared(gpa + GHCB.sw_exit_info_2, 8)
  if (outcome === REPLY.INJECT_EXCEPTION) return raised(lo, hi)
  if (outcome === REPLY.MALFORMED_INPUT) return { ok: false, reason: hi === 0 && isReason(lo) ? lo : VMM_ERROR }
  if (outcome !== REPLY.NO_ACTION) return vmmError
  const value: { [name in ReplyName]?: U64 } = {}
  for (const name of returns as ReadonlyArray<ReplyName>) {
    if (name === "info2") {
      if (!(yield* isSupplied(gpa, GHCB.sw_exit_info_2))) return vmmError
      value.info2 = { lo, hi }
      continue
    }
    const register = yield* replyRegister(gpa, name)
    if (register === null) return vmmError
    value[name] = register
  }
  return { ok: true, value: value as Reply<K> }
}

function* isSupplied(gpa: number, offset: number): Program<boolean> {
  return ((yield readShared(gpa + validByte(offset), 1)).lo & validMask(offset)) !== 0
}

/** A register of the reply by who holds the page; null when the hypervisor has not supplied it. */
export function* replyRegister(gpa: number, name: RegisterName): Program<U64 | null> {
  if (!(yield* isSupplied(gpa, OFFSET[name]))) return null
  const { lo, hi } = yield readShared(gpa + OFFSET[name], 8)
  return { lo, hi }
}

const isReason = (reason: number): boolean => reason >= REASON.GHCB_NOT_REGISTERED && reason <= REASON.INVALID_EVENT

/** Of the exceptions that the hypervisor may ask for only these two are raised; everything else is its error. */
const raised = (lo: number, hi: number): Failure => {
  const { valid, type, vector, errorCodeValid, errorCode } = eventOf(lo32(lo), hi)
  if (!valid || type !== EVENT_TYPE.EXCEPTION) return vmmError
  if (vector === VECTOR.GP) throw new GuestException("#GP", errorCodeValid ? errorCode : 0)
  if (vector === VECTOR.UD) throw new GuestException("#UD")
  return vmmError
}
