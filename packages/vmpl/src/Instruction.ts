import { EXIT, encodeIoio, INTERCEPT, intercepts, ioIntercepted, SEV_FEATURES, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { RFLAGS_IF } from "./Execution.ts"
import { OP, type Operation, type OperationResult } from "./Operation.ts"
import type { Processor } from "./Processor.ts"
import { STEP, type Step } from "./Step.ts"
import { reloadTranslation } from "./Translation.ts"

const RFLAGS_IOPL_SHIFT = 12
const CR4_TSD = 0x4

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

/** Instructions that any CPL may execute, where nothing else forbids it. */
const UNPRIVILEGED: ReadonlySet<number> = new Set([OP.RDTSC, OP.RDTSCP, OP.VMMCALL, OP.IN, OP.OUT, OP.INS, OP.OUTS])

/**
 * Executes an instruction that a hypervisor may intercept. Exceptions come before intercepts.
 * @spec APM2 15.9, 15.35.4
 */
export const executeInstruction = (cpu: Processor, operation: Operation, result: OperationResult): Step => {
  const { op } = operation
  if (cplOf(cpu) !== 0 && !UNPRIVILEGED.has(op)) return STEP.GP
  const plain = PLAIN[op]
  if (plain !== undefined) {
    if ((op === OP.RDTSC || op === OP.RDTSCP) && isTscDisabled(cpu)) return STEP.GP
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
      cpu.view.setUint32(VMSA.rflags, cpu.view.getUint32(VMSA.rflags, true) | RFLAGS_IF, true)
      return STEP.DONE
    case OP.CLI:
      cpu.view.setUint32(VMSA.rflags, cpu.view.getUint32(VMSA.rflags, true) & ~RFLAGS_IF, true)
      return STEP.DONE
    default:
      return executeSvm(cpu, operation)
  }
}

const isTscDisabled = (cpu: Processor): boolean =>
  cplOf(cpu) !== 0 && (cpu.view.getUint32(VMSA.cr4, true) & CR4_TSD) !== 0

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
      cpu.view.setUint32(VMSA.xcr0, lo, true)
      return (lo & 1) === 0 ? STEP.GP : STEP.DONE
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

/** A port that nobody intercepts leads to the machine, where there is no device: reads give ones. */
const executePort = (cpu: Processor, operation: Operation, result: OperationResult): Step => {
  const { op, address, lo, hi, size } = operation
  const string = op === OP.INS || op === OP.OUTS
  const port = string ? lo : address
  const iopl = (cpu.view.getUint32(VMSA.rflags, true) >>> RFLAGS_IOPL_SHIFT) & 3
  if (cplOf(cpu) > iopl) return STEP.GP
  const isIn = op === OP.IN || op === OP.INS
  const byte = (offset: number): number => cpu.hardware.host.read8(cpu.iopm + offset)
  // Port I/O of an SNP guest is always intercepted.
  if (cpu.isSnp || (intercepts(cpu.intercepts, INTERCEPT.IOIO_PROT) && ioIntercepted(byte, port, size))) {
    return nae(cpu, EXIT.IOIO, encodeIoio({ port, size, in: isIn, string, rep: string }), string ? hi : 0)
  }
  if (op === OP.IN) {
    result.lo = size === 4 ? 0xffff_ffff : 2 ** (8 * size) - 1
    result.hi = 0
  }
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
    if (hi !== 0) return STEP.GP
    cpu.view.setUint32(at, lo, true)
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
    result.lo = at === undefined ? cpu.vTpr >>> 4 : cpu.view.getUint32(at, true)
    result.hi = at === undefined ? 0 : cpu.view.getUint32(at + 4, true)
    return STEP.DONE
  }
  if (hi !== 0 || (register === 8 && lo > 0xf)) return STEP.GP
  if (at === undefined) cpu.vTpr = lo << 4
  else {
    cpu.view.setUint32(at, lo, true)
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
  if (isReservedAddress(cpu, address)) {
    if (!intercepts(cpu.intercepts, INTERCEPT.EXCEPTION + 13)) return STEP.GP
    return nae(cpu, EXIT.GP)
  }
  return intercepted ? nae(cpu, exit) : STEP.UD
}

/** Whether software may not name an address in VMRUN, VMLOAD or VMSAVE: no page, or reserved by the machine. */
export const isReservedAddress = ({ hardware: { hostMsrs } }: Processor, address: number): boolean =>
  address % 4096 !== 0 || (hostMsrs?.reserved ?? []).some(({ base, end }) => address >= base && address < end)

/** Offset of the TSC that the VMCB asks for, as a signed 64-bit value. */
export const tscOffsetOf = (cpu: Processor): bigint => {
  const { host } = cpu.hardware
  const lo = BigInt(host.read32(cpu.vmcb + VMCB.tsc_offset))
  const hi = BigInt(host.read32(cpu.vmcb + VMCB.tsc_offset + 4))
  return BigInt.asIntN(64, (hi << 32n) | lo)
}
