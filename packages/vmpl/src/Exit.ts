import { EXIT, PAGE_SIZE, setU64, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { COUNTER, PRIMITIVE } from "@vmpl-lab/sim"
import { loadHostState } from "./HostState.ts"
import { sealVmsa } from "./Integrity.ts"
import { HOST_ASID } from "./PhysicalMemory.ts"
import { addressIn, linearRip, type Processor } from "./Processor.ts"
import { isProtected, protectRegisters } from "./RegisterProtection.ts"
import { saveEvents } from "./VirtualInterrupt.ts"

/**
 * #VMEXIT with the same code and information in VMCB and VMSA.
 * @param code exit code; @param infoLo @param infoHi EXITINFO1; @param info2 EXITINFO2, exact below 2^53
 * @spec APM2 15.36.9
 */
export const vmexit = (cpu: Processor, code: number, infoLo = 0, infoHi = 0, info2 = 0): number => {
  setExitFields(cpu, code, infoLo, infoHi, info2, addressIn(cpu.view, VMSA.rip))
  return leaveGuest(cpu, code, infoLo, infoHi, info2)
}

/**
 * #VMEXIT once the exit fields of the VMSA are set: the guest's registers go into its VMSA, where only its own key reads
 * them; the VMCB shows the host the exit code, its information and the GHCB MSR, nothing else.
 * @param code exit code; @param infoLo @param infoHi EXITINFO1; @param info2 EXITINFO2, exact below 2^53
 * @spec APM2 15.35 (automatic exits), 15.36
 */
export const leaveGuest = (cpu: Processor, code: number, infoLo: number, infoHi: number, info2: number): number => {
  const { rmp, memory } = cpu.hardware
  if (cpu.thread.span === null && cpu.exitSpan !== null) {
    cpu.exitSpan.start(cpu.thread.time)
    cpu.thread.span = cpu.exitSpan
  }
  cpu.thread.charge(PRIMITIVE.vmexit_sev_snp)
  cpu.thread.count(COUNTER.VM_EXITS)
  const execution = cpu.execution
  if (execution !== null) {
    execution.rip = linearRip(cpu)
    execution.nrip = addressIn(cpu.view, VMSA.guest_nrip)
    execution.emulatedRip = Number.NaN
  }
  saveEvents(cpu, memory.write(cpu.vmcb / PAGE_SIZE, HOST_ASID))
  const view = memory.write(cpu.vmsaPfn, cpu.asid)
  // Only VMRUN writes TLB_ID and PCPU_ID: a 0 that software has put there since is not lost.
  if (cpu.tlb !== null) for (let at = VMSA.tlb_id; at < VMSA.pcpu_id + 8; at++) cpu.registers[at] = view.getUint8(at)
  if (isProtected(cpu.view)) protectRegisters(cpu, view)
  else memory.writeHead(cpu.vmsaPfn, cpu.asid, cpu.registers)
  if (!cpu.isSnp) sealVmsa(cpu.hardware, cpu.vmsaPfn, cpu.asid)
  rmp.clearInUse(cpu.vmsaPfn)
  rmp.clearInUse(cpu.vmcb / PAGE_SIZE)
  if (cpu.avicPfn >= 0) rmp.clearInUse(cpu.avicPfn)
  saveControl(cpu, code, infoLo, infoHi, info2)
  if (cpu.hardware.hostMsrs !== undefined) loadHostState(cpu)
  cpu.thread.note("#VMEXIT", code)
  cpu.vmsaPfn = -1
  cpu.execution = null
  // An interrupt that was still on its way finds the core in the host: the request behind it is seen there.
  cpu.interruptAt = Infinity
  cpu.interruptCode = EXIT.INTR
  cpu.interruptSpan = null
  return code
}

/**
 * Moves RIP past a completed operation: one byte each, inside the page of the program's entry, where a loop would
 * bring a real one back. Enough to tell how far a program has come, and every fetch stays in code that was granted.
 */
export const advanceRip = (cpu: Processor): void => {
  cpu.view.setUint16(VMSA.rip, nextRip(cpu.view.getUint16(VMSA.rip, true)), true)
}

/** RIP of the next instruction. */
export const followingRip = ({ view }: Processor): number => {
  const rip = view.getUint16(VMSA.rip, true)
  return addressIn(view, VMSA.rip) + nextRip(rip) - rip
}

/** RIP after the operation at `rip`, of which the lower 16 bits matter. */
export const nextRip = (rip: number): number => (rip & 0xf000) | ((rip + 1) & 0xfff)

/** GUEST_EXITCODE, GUEST_EXITINFO1 and 2, and GUEST_NRIP. */
export const setExitFields = (
  cpu: Processor,
  code: number,
  infoLo: number,
  infoHi: number,
  info2: number,
  nrip: number
): void => {
  const { view } = cpu
  view.setInt32(VMSA.guest_exit_code, code, true)
  view.setInt32(VMSA.guest_exit_code + 4, code < 0 ? -1 : 0, true)
  view.setUint32(VMSA.guest_exit_info_1, infoLo, true)
  view.setUint32(VMSA.guest_exit_info_1 + 4, infoHi, true)
  setU64(view, VMSA.guest_exit_info_2, info2)
  setU64(view, VMSA.guest_nrip, nrip)
}

/** What the host may see: the control area. The VMCB was hypervisor-owned at VMRUN and in use since. */
export const saveControl = (cpu: Processor, code: number, infoLo: number, infoHi: number, info2: number): void => {
  const control = cpu.hardware.memory.write(cpu.vmcb / PAGE_SIZE, HOST_ASID)
  control.setUint32(VMCB.exit_code, code >>> 0, true)
  control.setUint32(VMCB.exit_code + 4, code < 0 ? 0xffff_ffff : 0, true)
  control.setUint32(VMCB.exit_info_1, infoLo, true)
  control.setUint32(VMCB.exit_info_1 + 4, infoHi, true)
  setU64(control, VMCB.exit_info_2, info2)
  control.setUint32(VMCB.ghcb_gpa, cpu.ghcbLo, true)
  control.setUint32(VMCB.ghcb_gpa + 4, cpu.ghcbHi, true)
}
