// @ghcb msr 0x004, msr 0x100
import { EXIT, TERMINATE, type U64, u64, VMSA } from "@vmpl-lab/sev-es"
import {
  GuestException,
  OP,
  type Operation,
  type OperationResult,
  type Program,
  readRegister,
  type VcHandler,
  writeRegister
} from "@vmpl-lab/vmpl"
import { pageCpuid, readXcr0 } from "./CpuidTable.ts"
import type { Ghcb } from "./Ghcb.ts"
import { unsupportedEvent } from "./ghcb/Control.ts"
import type { Outcome } from "./ghcb/Exchange.ts"
import * as Instructions from "./ghcb/Instructions.ts"
import { mmioRead, mmioWrite } from "./ghcb/Mmio.ts"
import { ghcbIn, ghcbOut, ghcbStringIo } from "./ghcb/PortIo.ts"
import { cpuidRegister, terminate } from "./MsrProtocol.ts"
import { eaxWithSvsm, type SvsmPresence, serveCallingAreaMsr } from "./SvsmPresence.ts"

/**
 * The #VC handler of early boot, by the MSR protocol alone. A page that is not validated means that the host swapped
 * it: the guest stops rather than validate it again.
 * @param svsm the SVSM of the level that has this handler; left out where there is none
 * @spec APM2 15.35, 15.36.6
 */
export const makeEarlyVcHandler = (svsm?: SvsmPresence): VcHandler =>
  function* (errorCode, operation, result) {
    switch (errorCode) {
      case EXIT.CPUID: {
        const eax = yield* cpuidRegister(operation.address, 0)
        const ebx = yield* cpuidRegister(operation.address, 1)
        const ecx = yield* cpuidRegister(operation.address, 2)
        const edx = yield* cpuidRegister(operation.address, 3)
        result.lo = eaxWithSvsm(svsm, operation.address, eax)
        result.hi = ebx
        result.ecx = ecx
        result.edx = edx
        return
      }
      case EXIT.MSR:
        if (!serveCallingAreaMsr(svsm, operation, result)) yield* terminate(TERMINATE.GENERAL)
        return
      case EXIT.PAGE_NOT_VALIDATED:
        yield* terminate(TERMINATE.PVALIDATE)
        return
      default:
        yield* terminate(TERMINATE.GENERAL)
    }
  }

/** That of VMPL0, and of a guest without an SVSM. */
export const vcHandler: VcHandler = makeEarlyVcHandler()

/** What the #VC handler of one vCPU needs, and the DR7 that it keeps. */
export interface VcContext {
  readonly ghcb: Ghcb
  /** DR7 as the guest last set it. */
  dr7?: U64
  /** Reads of DR7 go to the hypervisor. */
  readonly asksForDr7?: boolean
  /** DR7 is the guest's own: an intercept of it is the hypervisor's trick. */
  readonly debugSwap?: boolean
  /** GPA of the CPUID page. Without one CPUID is what the hypervisor says. */
  readonly cpuidPage?: number
  /** The SVSM below which the guest runs. */
  readonly svsm?: SvsmPresence
}

/** DR7 after reset. */
const DR7_RESET: U64 = u64(0x400)

/** Of DR7 what can be written. */
const DR7_WRITABLE = 0xffff_23ff

const SIZES: ReadonlySet<number> = new Set([1, 2, 4, 8])

/** What the intercepted instruction gets, or the end of the guest where the hypervisor has no answer. */
function* need<T>(reply: Program<Outcome<T>>): Program<T> {
  const outcome = yield* reply
  return outcome.ok ? outcome.value : yield* terminate(TERMINATE.GENERAL)
}

const give = (result: OperationResult, { lo, hi }: U64): void => {
  result.lo = lo
  result.hi = hi
}

/**
 * The #VC handler with a GHCB. What the hypervisor refuses, and what it answers against the protocol, ends the guest;
 * #GP and #UD that it asks for are raised in the interrupted program.
 * @spec APM2 15.35, 15.36.6; GHCB "VMGEXIT events"
 */
export const makeVcHandler = (context: VcContext): VcHandler =>
  function* (errorCode, operation, result) {
    const { ghcb } = context
    const { op, address, lo, hi } = operation
    switch (errorCode) {
      case EXIT.CPUID:
        return yield* serveCpuid(context, operation, result)
      case EXIT.IOIO:
        return yield* servePort(context, operation, result)
      case EXIT.MSR:
        if (serveCallingAreaMsr(context.svsm, operation, result)) return
        if (op === OP.RDMSR) return give(result, yield* need(Instructions.ghcbRdmsr(ghcb, address)))
        if (op === OP.WRMSR) return void (yield* need(Instructions.ghcbWrmsr(ghcb, address, { lo, hi })))
        return yield* refuse(ghcb, errorCode)
      case EXIT.RDTSC:
        return give(result, yield* need(Instructions.ghcbRdtsc(ghcb)))
      case EXIT.RDTSCP: {
        const { tsc, aux } = yield* need(Instructions.ghcbRdtscp(ghcb))
        give(result, tsc)
        result.ecx = aux
        return
      }
      case EXIT.RDPMC:
        return give(result, yield* need(Instructions.ghcbRdpmc(ghcb, address)))
      case EXIT.INVD:
        return void (yield* need(Instructions.ghcbInvd(ghcb)))
      case EXIT.WBINVD:
        return void (yield* need(Instructions.ghcbWbinvd(ghcb)))
      case EXIT.VMMCALL:
        return yield* serveHypercall(ghcb, result)
      case EXIT.MONITOR:
        return void (yield* need(Instructions.ghcbMonitor(ghcb, u64(address))))
      case EXIT.MWAIT:
        return void (yield* need(Instructions.ghcbMwait(ghcb, lo, hi)))
      case EXIT.READ_DR7:
      case EXIT.WRITE_DR7:
        return yield* serveDr7(context, errorCode, operation, result)
      case EXIT.NPF:
        return yield* serveMmio(ghcb, operation, result)
      case EXIT.PAGE_NOT_VALIDATED:
        return yield* terminate(TERMINATE.PVALIDATE)
      default:
        return yield* refuse(ghcb, errorCode)
    }
  }

/** Tells the hypervisor that there is no way to serve this, and has the program take #GP. */
function* refuse(ghcb: Ghcb, errorCode: number): Program<never> {
  yield* unsupportedEvent(ghcb, errorCode)
  throw new GuestException("#GP")
}

function* serveCpuid({ ghcb, cpuidPage, svsm }: VcContext, operation: Operation, result: OperationResult): Program {
  const { address: leaf, lo: subleaf } = operation
  const answer =
    cpuidPage === undefined
      ? yield* need(Instructions.ghcbCpuid(ghcb, leaf, subleaf, yield* readXcr0()))
      : yield* pageCpuid(ghcb, cpuidPage, leaf, subleaf)
  give(result, { lo: eaxWithSvsm(svsm, leaf, answer.eax), hi: answer.ebx })
  result.ecx = answer.ecx
  result.edx = answer.edx
}

function* servePort({ ghcb }: VcContext, operation: Operation, result: OperationResult): Program {
  const { op, address, lo, hi, size, cbit } = operation
  if (op === OP.IN) give(result, u64(yield* need(ghcbIn(ghcb, address, size))))
  else if (op === OP.OUT) yield* need(ghcbOut(ghcb, address, size, lo))
  else if (op === OP.INS || op === OP.OUTS) {
    yield* need(ghcbStringIo(ghcb, op === OP.INS, { port: lo, size, count: hi, address, cbit }))
  } else yield* refuse(ghcb, EXIT.IOIO)
}

/** The number and the arguments are in the registers, RAX takes the answer. */
function* serveHypercall(ghcb: Ghcb, result: OperationResult): Program {
  const value = function* (offset: number): Program<U64> {
    const { lo, hi } = yield readRegister(offset)
    return { lo, hi }
  }
  const rax = yield* need(
    Instructions.ghcbVmmcall(ghcb, {
      rax: yield* value(VMSA.rax),
      rbx: yield* value(VMSA.rbx),
      rcx: yield* value(VMSA.rcx),
      rdx: yield* value(VMSA.rdx),
      rsi: yield* value(VMSA.rsi),
      cpl: (yield* value(VMSA.cpl)).lo & 3
    })
  )
  yield writeRegister(VMSA.rax, rax.lo, rax.hi)
  give(result, rax)
}

/** @spec Linux vc_handle_dr7_read, vc_handle_dr7_write */
function* serveDr7(context: VcContext, errorCode: number, { lo, hi }: Operation, result: OperationResult): Program {
  const { ghcb } = context
  if (context.debugSwap === true) yield* refuse(ghcb, errorCode)
  if (errorCode === EXIT.READ_DR7) {
    const asks = context.asksForDr7 === true
    return give(result, asks ? yield* need(Instructions.ghcbReadDr7(ghcb)) : (context.dr7 ?? DR7_RESET))
  }
  if (hi !== 0) throw new GuestException("#GP")
  const value = u64(((lo & DR7_WRITABLE) | DR7_RESET.lo) >>> 0)
  yield* need(Instructions.ghcbWriteDr7(ghcb, value))
  context.dr7 = value
}

/** A device's registers are in shared memory: what goes to an encrypted page is not for the hypervisor to see. */
function* serveMmio(ghcb: Ghcb, operation: Operation, result: OperationResult): Program {
  const { op, address, size, lo, hi, cbit } = operation
  if (op !== OP.READ && op !== OP.WRITE) return yield* refuse(ghcb, EXIT.NPF)
  if (cbit || !SIZES.has(size)) throw new GuestException("#GP")
  if (op === OP.READ) give(result, yield* need(mmioRead(ghcb, address, size)))
  else yield* need(mmioWrite(ghcb, address, size, { lo, hi }))
}
