import { ACCESS } from "@vmpl-lab/rmp"
import {
  EXIT,
  encodeIoio,
  INTERCEPT,
  intercepts,
  ioIntercepted,
  PAGE_SIZE,
  SEV_FEATURES,
  setU64,
  VMCB,
  VMSA
} from "@vmpl-lab/sev-es"
import { assert } from "@vmpl-lab/sim"
import { RFLAGS_IF } from "./Execution.ts"
import { followingRip } from "./Exit.ts"
import { offsetInPage, translate } from "./GuestAccess.ts"
import { OP, type Operation, type OperationResult } from "./Operation.ts"
import type { HostMsrs, Processor } from "./Processor.ts"
import { STEP, type Step } from "./Step.ts"
import { reloadTranslation } from "./Translation.ts"

const RFLAGS_IOPL_SHIFT = 12
const CR4_TSD = 0x4
const CR4_PCE = 0x100

/** The non-automatic exit of an intercepted instruction. */
const nae = (cpu: Processor, code: number, infoLo = 0, info2 = 0): Step => {
  cpu.exitCode = code
  cpu.exitInfoLo = infoLo
  cpu.exitInfoHi = 0
  cpu.exitInfo2 = info2
  return STEP.VC_NAE
}

/** The automatic exit of a trap: the instruction has completed. */
const trap = (cpu: Processor, code: number, lo: number, hi: number): Step => {
  cpu.exitCode = code
  cpu.exitInfoLo = lo
  cpu.exitInfoHi = hi
  cpu.exitInfo2 = 0
  return STEP.EXIT
}

const cplOf = (cpu: Processor): number => cpu.registers[VMSA.cpl]!

/** Intercept and exit code of the instructions that have no operand to look at. */
const PLAIN: { readonly [op: number]: readonly [intercept: number, exit: number] } = {
  [OP.RDTSC]: [INTERCEPT.RDTSC, EXIT.RDTSC],
  [OP.RDTSCP]: [INTERCEPT.RDTSCP, EXIT.RDTSCP],
  [OP.RDPMC]: [INTERCEPT.RDPMC, EXIT.RDPMC],
  [OP.INVD]: [INTERCEPT.INVD, EXIT.INVD],
  [OP.WBINVD]: [INTERCEPT.WBINVD, EXIT.WBINVD],
  [OP.VMMCALL]: [INTERCEPT.VMMCALL, EXIT.VMMCALL],
  [OP.MONITOR]: [INTERCEPT.MONITOR, EXIT.MONITOR],
  [OP.MWAIT]: [INTERCEPT.MWAIT, EXIT.MWAIT],
  [OP.XSETBV]: [INTERCEPT.XSETBV, EXIT.XSETBV]
}

/** What an instruction does at CPL 1 to 3, before any intercept is looked at; the others are #GP(0). */
const atUserLevel = (cpu: Processor, op: number): Step => {
  switch (op) {
    case OP.VMMCALL:
      return STEP.DONE
    case OP.RDTSC:
    case OP.RDTSCP:
      return (cpu.view.getUint32(VMSA.cr4, true) & CR4_TSD) === 0 ? STEP.DONE : STEP.GP
    case OP.RDPMC:
      return (cpu.view.getUint32(VMSA.cr4, true) & CR4_PCE) !== 0 ? STEP.DONE : STEP.GP
    case OP.IN:
    case OP.OUT:
    case OP.INS:
    case OP.OUTS:
    case OP.STI:
    case OP.CLI:
      return cplOf(cpu) <= ioplOf(cpu) ? STEP.DONE : STEP.GP
    case OP.MONITOR:
    case OP.MWAIT:
      return STEP.UD
    default:
      return STEP.GP
  }
}

const ioplOf = (cpu: Processor): number => (cpu.view.getUint32(VMSA.rflags, true) >>> RFLAGS_IOPL_SHIFT) & 3

/**
 * Executes an instruction that a hypervisor may intercept. Exceptions come before intercepts.
 * @spec APM2 15.9, 15.35.4
 */
export const executeInstruction = (cpu: Processor, operation: Operation, result: OperationResult): Step => {
  const { op } = operation
  if (cplOf(cpu) !== 0) {
    const permitted = atUserLevel(cpu, op)
    if (permitted !== STEP.DONE) return permitted
  }
  const plain = PLAIN[op]
  if (plain !== undefined) {
    if (intercepts(cpu.intercepts, plain[0])) return nae(cpu, plain[1])
    return executePlain(cpu, operation, result)
  }
  switch (op) {
    case OP.IN:
    case OP.OUT:
    case OP.INS:
    case OP.OUTS:
      return executePort(cpu, operation, result)
    case OP.READ_DR:
    case OP.WRITE_DR:
      return executeDebugRegister(cpu, operation, result)
    case OP.READ_CR:
    case OP.WRITE_CR:
      return executeControlRegister(cpu, operation, result)
    case OP.STI:
      return setInterruptFlag(cpu)
    case OP.CLI:
      cpu.view.setUint32(VMSA.rflags, cpu.view.getUint32(VMSA.rflags, true) & ~RFLAGS_IF, true)
      return STEP.DONE
    default:
      return executeSvm(cpu, operation)
  }
}

/** An interrupt shadow follows only where RFLAGS.IF was clear before. @spec APM3 STI */
const setInterruptFlag = (cpu: Processor): Step => {
  const rflags = cpu.view.getUint32(VMSA.rflags, true)
  cpu.view.setUint32(VMSA.rflags, rflags | RFLAGS_IF, true)
  return (rflags & RFLAGS_IF) === 0 ? STEP.SHADOW : STEP.DONE
}

/** What is not intercepted. Caches are not modelled, and there are no performance counters. */
const executePlain = (cpu: Processor, { op, lo }: Operation, result: OperationResult): Step => {
  switch (op) {
    case OP.RDTSCP:
      result.ecx = cpu.view.getUint32(VMSA.tsc_aux, true)
      return readTsc(cpu, result)
    case OP.RDTSC:
      return readTsc(cpu, result)
    case OP.RDPMC:
      return STEP.GP
    case OP.VMMCALL:
      return STEP.UD
    case OP.XSETBV:
      if ((lo & 1) === 0) return STEP.GP
      setU64(cpu.view, VMSA.xcr0, lo)
      return STEP.DONE
    default:
      // INVD, WBINVD, MONITOR; MWAIT may end at any time, and does.
      return STEP.DONE
  }
}

/** Ticks of the TSC per microsecond of virtual time: 2 GHz. */
export const TSC_MHZ = 2_000

/** The host's TSC at a virtual time. */
export const hostTsc = (ns: number): number => Math.floor((ns * TSC_MHZ) / 1_000)

/**
 * The guest's TSC: the host's with the VMCB's offset, or under SecureTSC scaled (8.32 fixed point) and offset as the
 * VMSA says, which the host cannot change.
 * @spec APM2 15.30.5, 15.36.18
 */
const readTsc = (cpu: Processor, result: OperationResult): Step => {
  const { view } = cpu
  const host = hostTsc(cpu.thread.time)
  const secure = (view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.SecureTSC) !== 0
  const tsc = secure
    ? ((BigInt(host) * view.getBigUint64(VMSA.guest_tsc_scale, true)) >> 32n) +
      view.getBigUint64(VMSA.guest_tsc_offset, true)
    : BigInt(host) + tscOffsetOf(cpu)
  const wrapped = BigInt.asUintN(64, tsc)
  result.lo = Number(wrapped & 0xffff_ffffn)
  result.hi = Number(wrapped >> 32n)
  return STEP.DONE
}

/**
 * IN and OUT. EXITINFO2 is the RIP of the next instruction. A port that nobody intercepts leads to the machine, where
 * there is no device: reads give ones.
 * @spec APM2 15.10.2
 */
const executePort = (cpu: Processor, operation: Operation, result: OperationResult): Step => {
  const { op, address, lo, hi, size } = operation
  const string = op === OP.INS || op === OP.OUTS
  const port = string ? lo : address
  const isIn = op === OP.IN || op === OP.INS
  const byte = (offset: number): number => cpu.hardware.host.read8(cpu.iopm + offset)
  // Port I/O of an SNP guest is always intercepted.
  if (cpu.isSnp || (intercepts(cpu.intercepts, INTERCEPT.IOIO_PROT) && ioIntercepted(byte, port, size))) {
    return nae(cpu, EXIT.IOIO, encodeIoio({ port, size, in: isIn, string, rep: string }), followingRip(cpu))
  }
  if (string) return moveString(cpu, address, size * hi, isIn)
  if (isIn) {
    result.lo = size === 4 ? 0xffff_ffff : 2 ** (8 * size) - 1
    result.hi = 0
  }
  return STEP.DONE
}

/** REP INS and REP OUTS where there is no device: ones come in, what goes out is only read. */
const moveString = (cpu: Processor, address: number, length: number, isIn: boolean): Step => {
  const pfn = translate(cpu, address, isIn ? ACCESS.WRITE : ACCESS.READ, true)
  if (pfn < 0) return cpu.failure
  const offset = offsetInPage(address)
  assert(offset + length <= PAGE_SIZE, "a string stays inside one page")
  if (!isIn) return STEP.DONE
  const view = cpu.hardware.memory.write(pfn, cpu.key)
  new Uint8Array(view.buffer, view.byteOffset + offset, length).fill(0xff)
  return STEP.DONE
}

/** The registers that debugging uses; 4 and 5 do not exist here. */
const DEBUG_REGISTER: { readonly [register: number]: number } = {
  0: VMSA.dr0,
  1: VMSA.dr1,
  2: VMSA.dr2,
  3: VMSA.dr3,
  6: VMSA.dr6,
  7: VMSA.dr7
}

const executeDebugRegister = (cpu: Processor, operation: Operation, result: OperationResult): Step => {
  const { op, address: register, lo, hi } = operation
  const at = DEBUG_REGISTER[register]
  if (at === undefined) return STEP.UD
  const write = op === OP.WRITE_DR
  const intercept = (write ? INTERCEPT.DR0_WRITE : INTERCEPT.DR0_READ) + register
  if (intercepts(cpu.intercepts, intercept)) return nae(cpu, (write ? 0x30 : 0x20) + register)
  if (write) {
    // DR0 to DR3 are linear addresses; of the others the upper half is reserved.
    if (hi !== 0 && register >= 6) return STEP.GP
    cpu.view.setUint32(at, lo, true)
    cpu.view.setUint32(at + 4, hi, true)
  } else {
    result.lo = cpu.view.getUint32(at, true)
    result.hi = cpu.view.getUint32(at + 4, true)
  }
  return STEP.DONE
}

const CONTROL_REGISTER: { readonly [register: number]: number } = { 0: VMSA.cr0, 3: VMSA.cr3, 4: VMSA.cr4 }

/**
 * MOV to and from CR0, CR3, CR4 and CR8. An intercept of the access itself is #VC, which no guest can make use of: a
 * hypervisor takes the write traps, which tell it of the new value once it is in place.
 * @spec APM2 15.35.5
 */
const executeControlRegister = (cpu: Processor, operation: Operation, result: OperationResult): Step => {
  const { op, address: register, lo, hi } = operation
  const at = CONTROL_REGISTER[register]
  if (at === undefined && register !== 8) return STEP.UD
  const write = op === OP.WRITE_CR
  const intercept = (write ? INTERCEPT.CR0_WRITE : INTERCEPT.CR0_READ) + register
  if (intercepts(cpu.intercepts, intercept)) return nae(cpu, (write ? EXIT.WRITE_CR0 : EXIT.READ_CR0) + register)
  if (!write) {
    result.lo = at === undefined ? cpu.vTpr : cpu.view.getUint32(at, true)
    result.hi = at === undefined ? 0 : cpu.view.getUint32(at + 4, true)
    return STEP.DONE
  }
  if ((hi !== 0 && register !== 3) || (register === 8 && lo > 0xf)) return STEP.GP
  if (at === undefined) cpu.vTpr = lo
  else {
    cpu.view.setUint32(at, lo, true)
    cpu.view.setUint32(at + 4, hi, true)
    reloadTranslation(cpu)
  }
  return intercepts(cpu.intercepts, INTERCEPT.CR0_WRITE_TRAP + register)
    ? trap(cpu, EXIT.CR0_WRITE_TRAP + register, lo, hi)
    : STEP.DONE
}

const SVM: { readonly [op: number]: readonly [intercept: number, exit: number] } = {
  [OP.VMRUN]: [INTERCEPT.VMRUN, EXIT.VMRUN],
  [OP.VMLOAD]: [INTERCEPT.VMLOAD, EXIT.VMLOAD],
  [OP.VMSAVE]: [INTERCEPT.VMSAVE, EXIT.VMSAVE]
}

/**
 * VMRUN, VMLOAD and VMSAVE of a guest. RAX is compared with the machine's reserved addresses, although it is a guest's:
 * without CPUID 8000_000A EDX[28] (SvmeAddrChk) that #GP comes before the intercept, with it after. Where nothing
 * intercepts them they are #UD: there is no nested virtualization here.
 * @spec APM2 15.5.1
 */
const executeSvm = (cpu: Processor, { op, address }: Operation): Step => {
  const [intercept, exit] = SVM[op]!
  const { hostMsrs } = cpu.hardware
  const intercepted = intercepts(cpu.intercepts, intercept)
  if (intercepted && hostMsrs?.svmeAddrChk !== false) return nae(cpu, exit)
  if (isReservedAddress(cpu, address)) return STEP.GP
  return intercepted ? nae(cpu, exit) : STEP.UD
}

/** Whether software may not name an address in VMRUN, VMLOAD or VMSAVE: no page, or reserved by the machine. */
export const isReservedAddress = ({ hardware: { hostMsrs } }: Processor, address: number): boolean =>
  offsetInPage(address) !== 0 || (hostMsrs?.reserved !== undefined && isWithin(hostMsrs.reserved, address))

const isWithin = (ranges: NonNullable<HostMsrs["reserved"]>, address: number): boolean =>
  ranges.some(({ base, end }) => address >= base && address < end)

/** Offset of the TSC that the VMCB asks for, as a signed 64-bit value. */
export const tscOffsetOf = (cpu: Processor): bigint => {
  const { host } = cpu.hardware
  const lo = BigInt(host.read32(cpu.vmcb + VMCB.tsc_offset))
  const hi = BigInt(host.read32(cpu.vmcb + VMCB.tsc_offset + 4))
  return BigInt.asIntN(64, (hi << 32n) | lo)
}
