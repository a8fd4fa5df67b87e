import { APIC_REG, IOAPIC_BASE } from "../apic/index.ts"
import type { Vcpu } from "./Vcpu.ts"

const PAGE = 4096
const WORD = 4

/**
 * MMIO that KVM serves itself: the local APIC in xAPIC mode and the I/O APIC, 32-bit registers. What does not fit one
 * reads as zero and is not written.
 * @param data of a write, or filled by a read
 * @returns false when user space has to
 */
export const kernelMmio = (vcpu: Vcpu, gpa: number, data: Uint8Array, isWrite: boolean): boolean => {
  const { lapic } = vcpu
  const { irqchip } = vcpu.vm
  if (lapic === null || irqchip === null) return false
  const page = Math.floor(gpa / PAGE) * PAGE
  const offset = gpa - page
  const view = new DataView(data.buffer, data.byteOffset, data.length)
  const whole = data.length === WORD && offset % WORD === 0
  if (page === IOAPIC_BASE && vcpu.vm.config.irqchip !== "split") {
    if (!whole) data.fill(0)
    else if (isWrite) irqchip.ioapic.write(offset, view.getUint32(0, true))
    else view.setUint32(0, irqchip.ioapic.read(offset), true)
    return true
  }
  const base = ((lapic.readApicBase() & 0xffff_f000) >>> 0) as number
  if (page !== base || !lapic.enabled || lapic.x2apic) return false
  if (!whole) data.fill(0)
  else if (isWrite) {
    if (offset === APIC_REG.EOI) irqchip.observeEoi(vcpu)
    lapic.write(offset, view.getUint32(0, true))
  } else view.setUint32(0, lapic.read(offset) ?? 0, true)
  return true
}
