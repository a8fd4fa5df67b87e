import { APIC_CALL, APIC_CONFIGURE, APIC_VECTOR, GUEST_VMPL, PROTOCOL, SVSM_RESULT, X2APIC } from "@vmpl-lab/guest"
import { INT_CTL, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { type Program, read, write } from "@vmpl-lab/vmpl"
import { COCONUT_PANIC } from "../CoconutPanic.ts"
import { FIRST_VECTOR, type GuestApic } from "../GuestApic.ts"
import type { SvsmState } from "../State.ts"
import { icrVector, sendByIcr } from "./ApicIcr.ts"
import type { Protocol } from "./Protocol.ts"
import { type SvsmRequest, setRegister } from "./Request.ts"

const VECTORS = 256
const APIC_USERS_MAX = 0xffff_ffff

/** The emulated APIC of the caller; null where its level has the host's. There is one for the one level that boots. */
export const guestApicOf = (state: SvsmState, { apicId, vmpl }: SvsmRequest["caller"]): GuestApic | null =>
  vmpl === GUEST_VMPL ? (state.interrupts[apicId]?.guestApic ?? null) : null

/**
 * APIC protocol, by call number. Without an emulated APIC the protocol is not there. What the ICR sends is left to
 * `sendByIcr`, and the end of the emulation to `leaveUnused`.
 */
export const apic = (state: SvsmState, request: SvsmRequest): number => {
  const guest = guestApicOf(state, request.caller)
  if (guest === null) return SVSM_RESULT.UNSUPPORTED_PROTOCOL
  switch (request.call) {
    case APIC_CALL.QUERY_FEATURES:
      setRegister(request, "rcx", 0)
      return SVSM_RESULT.SUCCESS
    case APIC_CALL.CONFIGURE:
      return configure(state, request)
    case APIC_CALL.READ_REGISTER:
      return readRegister(guest, request, state.behaviour.showsVectorInPpr)
    case APIC_CALL.WRITE_REGISTER:
      return writeRegister(guest, request, state.behaviour.keepsTprSubclass)
    case APIC_CALL.CONFIGURE_VECTOR:
      return configureVector(guest, request)
    default:
      return SVSM_RESULT.UNSUPPORTED_CALL
  }
}

/**
 * One count for the guest: who needs the emulation. It begins at 1, and once it has come down to 0 it stays there. The
 * count itself is nobody's to read.
 */
const configure = (state: SvsmState, request: SvsmRequest): number => {
  if (request.rcxHi !== 0) return SVSM_RESULT.INVALID_PARAMETER
  switch (request.rcxLo) {
    case APIC_CONFIGURE.QUERY:
      return SVSM_RESULT.SUCCESS
    case APIC_CONFIGURE.DEREGISTER:
      state.apicUsers = Math.max(0, state.apicUsers - 1)
      return SVSM_RESULT.SUCCESS
    case APIC_CONFIGURE.REGISTER:
      if (state.apicUsers === 0 || state.apicUsers === APIC_USERS_MAX) return SVSM_RESULT.FAIL_BASE
      state.apicUsers++
      return SVSM_RESULT.SUCCESS
    default:
      return SVSM_RESULT.INVALID_PARAMETER
  }
}

/**
 * Nobody needs the emulation any more: on the CPU that asks, whichever took the count down, the host takes over. New
 * VMSAs are compared with what the start-up vCPU has then.
 * @spec-silent what a guest hears whose host does not take over; COCONUT-SVSM stops
 */
function* leaveUnused(state: SvsmState, { caller }: SvsmRequest): Program<number> {
  if (!(yield* state.interrupts[caller.apicId]!.handOverApic(caller))) {
    state.wouldPanic(COCONUT_PANIC.HOST_KEEPS_OUT)
    return SVSM_RESULT.INVALID_REQUEST
  }
  if (!caller.guestOwned) state.startUpFeatures &= ~SEV_FEATURES.AlternateInjection
  return SVSM_RESULT.SUCCESS
}

/** The guest reads its task priority in CR8 too, and its virtual interrupts are measured by it. @spec APM2 15.36.16 */
function* putCr8(vmsaGpa: number, cr8: number): Program {
  const control = (yield read(vmsaGpa + VMSA.vintr_ctrl, 4)).lo
  yield write(vmsaGpa + VMSA.vintr_ctrl, 4, ((control & ~INT_CTL.V_TPR_MASK) | cr8) >>> 0)
}

/** RCX is the register's x2APIC MSR, RDX its value. */
const readRegister = (guest: GuestApic, request: SvsmRequest, wholeVector: boolean): number => {
  if (request.rcxHi !== 0) return SVSM_RESULT.INVALID_ADDRESS
  if (request.rcxLo === X2APIC.ICR) {
    request.rdxLo = guest.icrLo
    request.rdxHi = guest.icrHi
    return SVSM_RESULT.SUCCESS
  }
  const isPpr = request.rcxLo === X2APIC.PPR
  const value = isPpr ? guest.processorPriority(wholeVector) : guest.read(request.rcxLo)
  if (value === null) return isWriteOnly(request.rcxLo) ? SVSM_RESULT.INVALID_PARAMETER : SVSM_RESULT.INVALID_ADDRESS
  setRegister(request, "rdx", value)
  return SVSM_RESULT.SUCCESS
}

const isWriteOnly = (msr: number): boolean => msr === X2APIC.EOI || msr === X2APIC.SELF_IPI

const writeRegister = (
  guest: GuestApic,
  { rcxLo, rcxHi, rdxLo, rdxHi }: SvsmRequest,
  keepsSubclass: boolean
): number => {
  const isByte = rdxHi === 0 && rdxLo <= 0xff
  if (rcxHi !== 0) return SVSM_RESULT.INVALID_ADDRESS
  switch (rcxLo) {
    case X2APIC.EOI:
      if (rdxLo !== 0 || rdxHi !== 0) return SVSM_RESULT.INVALID_PARAMETER
      guest.endOfInterrupt()
      return SVSM_RESULT.SUCCESS
    case X2APIC.TPR:
      if (!isByte) return SVSM_RESULT.INVALID_PARAMETER
      guest.tpr = keepsSubclass ? rdxLo : rdxLo & 0xf0
      return SVSM_RESULT.SUCCESS
    case X2APIC.ICR:
      if (icrVector(rdxLo) === null) return SVSM_RESULT.INVALID_PARAMETER
      guest.icrLo = rdxLo
      guest.icrHi = rdxHi
      return SVSM_RESULT.SUCCESS
    case X2APIC.SELF_IPI:
      if (!isByte) return SVSM_RESULT.INVALID_PARAMETER
      guest.postOwn(rdxLo)
      return SVSM_RESULT.SUCCESS
    default:
      return guest.read(rcxLo) === null ? SVSM_RESULT.INVALID_ADDRESS : SVSM_RESULT.INVALID_PARAMETER
  }
}

/** RCX: vector, enable, all; "all" is every vector that is no exception's, and when disabled every one there is. */
const configureVector = (guest: GuestApic, { rcxLo, rcxHi }: SvsmRequest): number => {
  const known = 0xff | APIC_VECTOR.ENABLE | APIC_VECTOR.ALL
  if (rcxHi !== 0 || (rcxLo & ~known) !== 0) return SVSM_RESULT.INVALID_PARAMETER
  const on = (rcxLo & APIC_VECTOR.ENABLE) !== 0
  if ((rcxLo & APIC_VECTOR.ALL) === 0) guest.allow(rcxLo & 0xff, on)
  else for (let vector = on ? FIRST_VECTOR : 0; vector < VECTORS; vector++) guest.allow(vector, on)
  return SVSM_RESULT.SUCCESS
}

/** The APIC protocol, version 1, where the calling CPU has an emulated APIC. */
export const apicProtocol: Protocol = {
  number: PROTOCOL.APIC,
  versions: (state, { caller }) => (guestApicOf(state, caller) === null ? null : { MIN: 1, MAX: 1 }),
  *serve(state, request) {
    const { call, rcxLo, rdxLo, rdxHi, caller } = request
    const result = apic(state, request)
    const isWrite = call === APIC_CALL.WRITE_REGISTER
    if (result !== SVSM_RESULT.SUCCESS) return result
    if (isWrite && rcxLo === X2APIC.TPR) yield* putCr8(caller.vmsaGpa, rdxLo >>> 4)
    if (isWrite && rcxLo === X2APIC.ICR) yield* sendByIcr(state, caller.apicId, rdxLo, rdxHi)
    return call === APIC_CALL.CONFIGURE && state.apicUsers === 0 ? yield* leaveUnused(state, request) : result
  }
}
