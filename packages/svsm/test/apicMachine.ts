/** A CPU of the SVSM with an emulated APIC, over memory of its own: VMSA, calling area and doorbell page. */
import { CALLING_AREA, PROTOCOL } from "@vmpl-lab/guest"
import { DOORBELL, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { apicProtocol, BEHAVIOUR, CpuInterrupts, GuestApic, type SvsmBehaviour, SvsmState } from "@vmpl-lab/svsm"
import { OP, type Operation, type Program, RFLAGS_IF, vmgexit } from "@vmpl-lab/vmpl"
import { resultName } from "../../../test/support/svsmAnswers.ts"

const { SNPActive, AlternateInjection } = SEV_FEATURES
export const VMSA_GPA = 0x1000
export const CA_GPA = 0x2000
const DOORBELL_GPA = 0x3000
export const DESCRIPTOR = DOORBELL_GPA + DOORBELL.vmpl2

/** One CPU with 0x41 in service, 0x60 and 31 requested and a TPR of 0x35, and what it says to the host. */
export const machine = (behaviour: SvsmBehaviour, { refuses = false, vmpl = 2, guestOwned = false } = {}) => {
  const memory = new DataView(new ArrayBuffer(0x4000))
  const exits: Array<string> = []
  const ghcb = {
    use: () => [].values(),
    *request(code: number, { info1 }: { readonly info1: { readonly lo: number } }) {
      exits.push(`0x${code.toString(16)}, info 1 0x${info1.lo.toString(16)}`)
      yield vmgexit()
      return refuses ? { ok: false, reason: 5 } : { ok: true, value: {} }
    }
  } as never
  const state = new SvsmState()
  state.behaviour = BEHAVIOUR[behaviour]
  state.parameters = { vcpus: 1 } as never
  state.startUpFeatures = SNPActive | AlternateInjection
  const guest = new GuestApic(0)
  for (const vector of [0x41, 0x60, 31]) guest.postOwn(vector)
  guest.take(0x41)
  guest.tpr = 0x35
  const cpu = new CpuInterrupts(ghcb, DOORBELL_GPA, guest, BEHAVIOUR[behaviour].lazyEoi)
  state.interrupts[0] = cpu
  memory.setUint32(VMSA_GPA + VMSA.sev_features, SNPActive | AlternateInjection, true)
  memory.setUint32(VMSA_GPA + VMSA.rflags, RFLAGS_IF, true)
  memory.setUint8(CA_GPA + CALLING_AREA.no_eoi_required, 7)
  const caller = { vmsaGpa: VMSA_GPA, caGpa: CA_GPA, apicId: 0, vmpl, guestOwned }
  return { memory, exits, state, guest, cpu, caller }
}
export type Machine = ReturnType<typeof machine>

const load = (memory: DataView, { op, address, size, lo, hi }: Operation) => {
  const result = { lo: 0, hi: 0, ecx: 0, edx: 0, carry: false }
  if (op !== OP.READ && op !== OP.WRITE && op !== OP.XCHG8) return result
  for (let at = 0; at < size; at++) {
    if (op !== OP.WRITE && at < 4) result.lo = (result.lo | (memory.getUint8(address + at) << (8 * at))) >>> 0
    if (op !== OP.READ) memory.setUint8(address + at, (at < 4 ? lo >>> (8 * at) : hi >>> (8 * at - 32)) & 0xff)
  }
  return result
}

/** @param between what the host does before an operation */
export const run = <T>(
  memory: DataView,
  program: Program<T>,
  between: (operation: Operation) => void = () => {}
): T => {
  let result = { lo: 0, hi: 0, ecx: 0, edx: 0, carry: false }
  for (;;) {
    const step = program.next(result)
    if (step.done === true) return step.value
    between(step.value)
    result = load(memory, step.value)
  }
}

export const ask = (
  { state, caller, memory }: Machine,
  call: number,
  rcxLo: number,
  { rdxLo = 0, between = () => {} }: { readonly rdxLo?: number; readonly between?: (operation: Operation) => void } = {}
): string => {
  const registers = { rcxLo, rcxHi: 0, rdxLo, rdxHi: 0, r8Lo: 0, r8Hi: 0 }
  const request = { protocol: PROTOCOL.APIC, call, ...registers, sevFeatures: 0, vmpl: caller.vmpl, caller }
  const served = apicProtocol.serve(state, request)
  const result = typeof served === "number" ? served : run(memory, served, between)
  return resultName(result)
}
