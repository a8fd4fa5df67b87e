import { PAGE_SIZE, SEGMENT, SEV_FEATURES, type SwapRange, swapRanges, VMSA } from "@vmpl-lab/sev-es"
import { isReservedAddress } from "./Instruction.ts"
import { HOST_ASID } from "./PhysicalMemory.ts"
import type { Processor } from "./Processor.ts"

/** Where in the page at VM_HSAVE_PA the save area is; there the CPU uses the layout of a VMSA. @spec Linux `struct sev_es_save_area` */
export const HOST_SAVE_OFFSET = 0x400

/**
 * The registers of a core at reset, at VMSA offsets, as far as #VMEXIT leaves them so: 0 but for the x87 and SSE control
 * words. FTW is the full tag word, all registers holding zeros.
 * @spec APM2 14.1.3
 * @spec-silent what "reset value" is of RDX, where a processor has its signature after RESET: 0 here
 */
export const hostResetState = (): Uint8Array => {
  const state = new Uint8Array(PAGE_SIZE)
  const view = new DataView(state.buffer)
  view.setUint32(VMSA.mxcsr, 0x1f80, true)
  view.setUint16(VMSA.x87_ftw, 0x5555, true)
  view.setUint16(VMSA.x87_fcw, 0x40, true)
  return state
}

const RESET = hostResetState()

/** DR0 to DR3 and their masks are swapped with DebugVirtualization only; else they stay the host's. */
const isDebug = ([offset]: SwapRange): boolean => offset === VMSA.dr0

const SAVED = swapRanges("A")
const LOADED_ALWAYS = [...SAVED, ...swapRanges("B").filter((range) => !isDebug(range))]
const LOADED_WITH_DEBUG = [...SAVED, ...swapRanges("B")]
const LOST = swapRanges("C")

/** What VMSAVE stores, which #VMEXIT of an SEV-ES guest gives back. @spec APM3 VMSAVE */
const VMSAVE: ReadonlyArray<SwapRange> = [
  ...[VMSA.fs, VMSA.gs, VMSA.ldtr, VMSA.tr].map((at): SwapRange => [at, SEGMENT.base + 8]),
  ...[VMSA.star, VMSA.lstar, VMSA.cstar, VMSA.sfmask, VMSA.kernel_gs_base].map((at): SwapRange => [at, 8]),
  ...[VMSA.sysenter_cs, VMSA.sysenter_esp, VMSA.sysenter_eip].map((at): SwapRange => [at, 8])
]

/** The core's registers in host mode. */
export const hostRegistersOf = (cpu: Processor): Uint8Array => {
  cpu.hostRegisters ??= hostResetState()
  return cpu.hostRegisters
}

const copy = (from: Uint8Array, to: Uint8Array, ranges: ReadonlyArray<SwapRange>): void => {
  for (const [offset, length] of ranges) to.set(from.subarray(offset, offset + length), offset)
}

/** From the first byte of the save area in a page to the page's end. */
const saveAreaIn = ({ buffer, byteOffset }: DataView): Uint8Array =>
  new Uint8Array(buffer, byteOffset + HOST_SAVE_OFFSET, PAGE_SIZE - HOST_SAVE_OFFSET)

const hsavePfn = ({ hardware: { hostMsrs } }: Processor): number => Math.floor(hostMsrs!.vmHsavePa / PAGE_SIZE)

/** VMRUN of a guest with a VMSA: host state of type A goes into the host save area, the rest is software's to keep. */
export const saveHostState = (cpu: Processor): void =>
  copy(hostRegistersOf(cpu), saveAreaIn(cpu.hardware.memory.write(hsavePfn(cpu), HOST_ASID)), SAVED)

/**
 * #VMEXIT: host state of types A and B comes from the host save area, as VMRUN and software left it there; that of type
 * C is at its reset value, so that nothing of the guest's is left in a register.
 * @spec APM2 15.35.8, appendix B table B-4
 */
export const loadHostState = (cpu: Processor): void => {
  const registers = hostRegistersOf(cpu)
  const debug = (cpu.view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.DebugVirtualization) !== 0
  const saved = saveAreaIn(cpu.hardware.memory.read(hsavePfn(cpu), HOST_ASID))
  copy(saved, registers, debug ? LOADED_WITH_DEBUG : LOADED_ALWAYS)
  copy(RESET, registers, LOST)
}

/**
 * VMSAVE in the host. A VMCB has its save area where the host save area has it, and the registers in question at the
 * offsets of a VMSA: KVM fills most of type B by a VMSAVE to VM_HSAVE_PA.
 * @returns false: #GP(0), because the address is no page, is reserved, or is not hypervisor-owned
 * @spec APM2 15.36.10 table 15-41
 */
export const hostVmsave = (cpu: Processor, address: number): boolean => {
  if (isReservedAddress(cpu, address) || !cpu.hardware.rmp.checkHypervisorOwned(address / PAGE_SIZE)) return false
  copy(hostRegistersOf(cpu), saveAreaIn(cpu.hardware.memory.write(address / PAGE_SIZE, HOST_ASID)), VMSAVE)
  return true
}
