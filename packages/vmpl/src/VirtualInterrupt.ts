import { ACCESS } from "@vmpl-lab/rmp"
import {
  decodeEventInjection,
  EVENT_TYPE,
  EXIT,
  INJECT_NMI,
  INT_CTL,
  INT_STATE,
  INTERCEPT,
  injectInterrupt,
  intercepts,
  SEV_FEATURES,
  setU64,
  VECTOR,
  VINTR_CTRL_BUSY_HI,
  VMCB,
  VMSA
} from "@vmpl-lab/sev-es"
import { type Execution, RFLAGS_IF } from "./Execution.ts"
import { vmexit } from "./Exit.ts"
import { offsetInPage, translate } from "./GuestAccess.ts"
import { type ExceptionName, GuestException } from "./Operation.ts"
import type { Processor } from "./Processor.ts"
import { STEP } from "./Step.ts"

/** Bit 31 of EVENTINJ. */
export const EVENT_VALID = 0x8000_0000

/** VINTR_CTRL's interrupt shadow, and the bits of it that stand as in the VMCB's int_ctl. */
const VINTR_SHADOW = 1 << 10

/**
 * VMRUN's part in events: takes EVENTINJ and the virtual interrupt from the VMCB, under alternate injection from the
 * VMSA, where the host cannot reach them.
 * @param control the VMCB
 * @spec APM2 15.20, 15.21, 15.36.16
 */
export const loadEvents = (cpu: Processor, control: DataView): void => {
  const { view } = cpu
  cpu.alternateInjection = (view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.AlternateInjection) !== 0
  if (cpu.alternateInjection) {
    cpu.intCtl = view.getUint32(VMSA.vintr_ctrl, true)
    cpu.intVector = view.getUint8(VMSA.vintr_ctrl + 4)
    cpu.shadow = (cpu.intCtl & VINTR_SHADOW) !== 0
    cpu.eventLo = view.getUint32(VMSA.event_inj, true)
    cpu.eventError = view.getUint32(VMSA.event_inj + 4, true)
    setU64(view, VMSA.event_inj, 0)
  } else {
    cpu.intCtl = control.getUint32(VMCB.int_ctl, true)
    cpu.intVector = control.getUint8(VMCB.int_vector)
    cpu.shadow = (control.getUint32(VMCB.int_state, true) & INT_STATE.INTERRUPT_SHADOW) !== 0
    cpu.eventLo = control.getUint32(VMCB.event_inj, true)
    cpu.eventError = control.getUint32(VMCB.event_inj_err, true)
  }
  cpu.vTpr = cpu.intCtl & INT_CTL.V_TPR_MASK
  cpu.delivering = 0
  cpu.deliveringError = 0
  cpu.attention = isPending(cpu)
}

const isPending = ({ intCtl }: Processor): boolean => (intCtl & INT_CTL.V_IRQ) !== 0 || isNmiPending(intCtl)

const isNmiPending = (intCtl: number): boolean =>
  (intCtl & INT_CTL.V_NMI_ENABLE) !== 0 && (intCtl & (INT_CTL.V_NMI | INT_CTL.V_NMI_MASK)) === INT_CTL.V_NMI

/**
 * #VMEXIT's part: the virtual interrupt as it now stands, the event that was in delivery, and of the guest's RFLAGS
 * just what an interrupt hangs on. Under alternate injection all that stays in the VMSA.
 */
export const saveEvents = (cpu: Processor, control: DataView): void => {
  const { view } = cpu
  const intCtl = ((cpu.intCtl & ~INT_CTL.V_TPR_MASK) | cpu.vTpr) >>> 0
  if (cpu.alternateInjection) {
    view.setUint32(VMSA.vintr_ctrl, ((intCtl & ~VINTR_SHADOW) | (cpu.shadow ? VINTR_SHADOW : 0)) >>> 0, true)
    view.setUint32(VMSA.guest_exit_int_info, cpu.delivering, true)
    view.setUint32(VMSA.guest_exit_int_info + 4, cpu.deliveringError, true)
    // Nobody enters again before the higher level has looked after the event.
    if (cpu.delivering !== 0) {
      const hi = view.getUint32(VMSA.vintr_ctrl + 4, true)
      view.setUint32(VMSA.vintr_ctrl + 4, (hi | VINTR_CTRL_BUSY_HI) >>> 0, true)
    }
    return
  }
  const enabled = (view.getUint32(VMSA.rflags, true) & RFLAGS_IF) !== 0
  control.setUint32(VMCB.int_ctl, intCtl, true)
  control.setUint32(
    VMCB.int_state,
    (cpu.shadow ? INT_STATE.INTERRUPT_SHADOW : 0) | (enabled ? INT_STATE.GUEST_INTERRUPT_MASK : 0),
    true
  )
  setU64(control, VMCB.event_inj, 0)
  control.setUint32(VMCB.exit_int_info, cpu.delivering, true)
  control.setUint32(VMCB.exit_int_info_err, cpu.deliveringError, true)
}

/**
 * VMRUN's delivery of EVENTINJ, which nothing masks. An NMI masks virtual ones where those are enabled.
 * @returns an exit code, or 0 when the guest goes on
 * @spec APM2 15.20, 15.21.10
 */
export const injectEvent = (cpu: Processor, execution: Execution): number => {
  const { eventLo, eventError } = cpu
  cpu.eventLo = 0
  if (decodeEventInjection(eventLo).type === EVENT_TYPE.NMI && (cpu.intCtl & INT_CTL.V_NMI_ENABLE) !== 0)
    cpu.intCtl |= INT_CTL.V_NMI_MASK
  return deliver(cpu, execution, eventLo, eventError)
}

/**
 * Before an instruction, while `cpu.attention`: delivers what is pending and not masked, an NMI first.
 * @returns an exit code, or 0 when the guest goes on
 */
export const takeEvents = (cpu: Processor, execution: Execution): number => {
  if (isNmiPending(cpu.intCtl)) {
    cpu.intCtl = (cpu.intCtl & ~INT_CTL.V_NMI) | INT_CTL.V_NMI_MASK
    return deliver(cpu, execution, INJECT_NMI, 0)
  }
  if ((cpu.intCtl & INT_CTL.V_IRQ) === 0) cpu.attention = false
  else if (isInterruptible(cpu)) {
    if (intercepts(cpu.intercepts, INTERCEPT.VINTR)) return vmexit(cpu, EXIT.VINTR)
    cpu.intCtl &= ~INT_CTL.V_IRQ
    return deliver(cpu, execution, injectInterrupt(cpu.intVector), 0)
  }
  return 0
}

/** RFLAGS.IF, no interrupt shadow, and a priority above the task priority unless that is ignored. @spec APM2 15.21.4 */
const isInterruptible = ({ view, shadow, intCtl, vTpr }: Processor): boolean => {
  if ((view.getUint32(VMSA.rflags, true) & RFLAGS_IF) === 0 || shadow) return false
  const priority = (intCtl >>> INT_CTL.V_INTR_PRIO_SHIFT) & 0xf
  return (intCtl & INT_CTL.V_IGN_TPR) !== 0 || priority > vTpr
}

const EXCEPTION_NAME: { readonly [vector: number]: ExceptionName } = {
  [VECTOR.DB]: "#DB",
  [VECTOR.UD]: "#UD",
  [VECTOR.DF]: "#DF",
  [VECTOR.GP]: "#GP",
  [VECTOR.PF]: "#PF",
  [VECTOR.MC]: "#MC"
}

/** Bytes that the CPU pushes: SS, RSP, RFLAGS, CS, RIP. */
const STACK_FRAME = 40

/**
 * Delivers an event through the IDT. A nested fault on the way leaves with the event in EXITINTINFO: the hypervisor
 * injects it again.
 * @returns an exit code, or 0
 * @spec APM2 15.7.2
 */
const deliver = (cpu: Processor, execution: Execution, lo: number, error: number): number => {
  cpu.halted = false
  cpu.shadow = false
  const { vector, type, errorCodeValid } = decodeEventInjection(lo)
  const { idt } = execution
  const isHv = type === EVENT_TYPE.EXCEPTION && vector === VECTOR.HV
  if (type === EVENT_TYPE.EXCEPTION && !isHv) {
    const name = EXCEPTION_NAME[vector]
    if (name === undefined) return vmexit(cpu, EXIT.SHUTDOWN)
    execution.pending = execution.raise(new GuestException(name, errorCodeValid ? error : 0), cpu)
    return 0
  }
  const handler = isHv ? idt?.hv : type === EVENT_TYPE.NMI ? idt?.nmi : idt?.interrupt
  if (handler === undefined) return vmexit(cpu, EXIT.SHUTDOWN)
  if (idt?.stack !== undefined) {
    const code = push(cpu, idt.stack - STACK_FRAME, lo, error)
    if (code !== 0) return code
  }
  execution.enterInterrupt(handler(vector), cpu)
  if (cpu.delivered !== null && type !== EVENT_TYPE.NMI) cpu.delivered(vector)
  return 0
}

const push = (cpu: Processor, address: number, lo: number, error: number): number => {
  const pfn = translate(cpu, address, ACCESS.WRITE, true)
  if (pfn < 0) {
    // Whatever else keeps the CPU from its stack is a double fault, for which there is no handler either.
    if (cpu.failure !== STEP.NPF) return vmexit(cpu, EXIT.SHUTDOWN)
    cpu.delivering = lo
    cpu.deliveringError = error
    return vmexit(cpu, EXIT.NPF, cpu.faultInfoLo, cpu.faultInfoHi, cpu.faultGpa)
  }
  const { view } = cpu
  const page = cpu.hardware.memory.write(pfn, cpu.key)
  const at = offsetInPage(address)
  page.setBigUint64(at, view.getBigUint64(VMSA.rip, true), true)
  setU64(page, at + 8, view.getUint16(VMSA.cs, true))
  page.setBigUint64(at + 16, view.getBigUint64(VMSA.rflags, true), true)
  page.setBigUint64(at + 24, view.getBigUint64(VMSA.rsp, true), true)
  setU64(page, at + 32, view.getUint16(VMSA.ss, true))
  return 0
}
