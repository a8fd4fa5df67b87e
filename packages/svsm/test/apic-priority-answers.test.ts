/** The task priority of an emulated APIC, which the guest has in CR8 too, and what it holds back. */
import { APIC_CALL, X2APIC } from "@vmpl-lab/guest"
import { decodeEventInjection, VMSA } from "@vmpl-lab/sev-es"
import { BEHAVIOUR, GuestInjection, type SvsmBehaviour } from "@vmpl-lab/svsm"
import { expect } from "vitest"
import { svsmAnswers } from "../../../test/support/svsmAnswers.ts"
import { ask, machine, run, VMSA_GPA } from "./apicMachine.ts"

const { answer, check } = svsmAnswers()
const { READ_REGISTER, WRITE_REGISTER } = APIC_CALL
const VINTR_CTRL = VMSA_GPA + VMSA.vintr_ctrl
const V_IRQ = 1 << 8
const hex = (value: number): string => `0x${value.toString(16)}`

answer("apic/write-tpr-cr8", (_, behaviour) => {
  const one = machine(behaviour)
  one.memory.setUint32(VINTR_CTRL, 0x400, true)
  expect(ask(one, WRITE_REGISTER, X2APIC.TPR, { rdxLo: 0x75 })).toBe("SUCCESS")
  expect(one.memory.getUint32(VINTR_CTRL, true)).toBe(0x407)
  return hex(one.memory.getUint32(VINTR_CTRL, true) & 0xf)
})

/** The guest's level has run, and left VINTR_CTRL so. */
const afterRun = (behaviour: SvsmBehaviour, control: number) => {
  const one = machine(behaviour)
  const injection = new GuestInjection(one.guest, BEHAVIOUR[behaviour].lazyEoi)
  one.memory.setUint32(VINTR_CTRL, control, true)
  run(one.memory, injection.returned(one.caller))
  return { ...one, injection }
}
answer("apic/read-tpr-cr8", (_, behaviour) => {
  const one = afterRun(behaviour, 6)
  expect(ask(one, READ_REGISTER, X2APIC.TPR)).toBe("SUCCESS")
  // An 8-bit value whose upper half the guest has not changed keeps its lower one.
  expect(afterRun(behaviour, 3).guest.tpr).toBe(0x35)
  return hex(one.guest.tpr)
})
answer("apic/held-by-tpr", (_, behaviour) => {
  const goesIn = [5, 6].map((cr8) => {
    const one = afterRun(behaviour, cr8)
    run(one.memory, one.injection.refresh(one.caller))
    const { valid, vector } = decodeEventInjection(one.memory.getUint32(VMSA_GPA + VMSA.event_inj, true))
    const waits = (one.memory.getUint32(VINTR_CTRL, true) & V_IRQ) !== 0
    expect(waits).toBe(!valid)
    return valid ? `EVENTINJ ${hex(vector)}` : `VINTR_CTRL ${hex(one.memory.getUint8(VINTR_CTRL + 4))}`
  })
  return goesIn.join(", ")
})

check()
