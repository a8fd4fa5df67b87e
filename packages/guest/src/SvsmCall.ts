import { hi32, lo32, MSR_GHCB, VMSA } from "@vmpl-lab/sev-es"
import {
  type Operation,
  type Program,
  rdmsr,
  readRegister,
  sequence,
  write,
  writeRegister,
  wrmsr,
  xchg8
} from "@vmpl-lab/vmpl"
import type { Ghcb } from "./Ghcb.ts"
import { runVmplMsr } from "./MsrProtocol.ts"

/** The level at which the SVSM runs. */
export const SVSM_VMPL = 0

/** Calling area: one byte says that a call waits. @spec SVSM 5 table 2 */
export const CALLING_AREA = { call_pending: 0, mem_available: 1, no_eoi_required: 2, SIZE: 8 } as const

/** SVSM protocols; the last one is COCONUT-SVSM's. @spec SVSM table 3 */
export const PROTOCOL = { CORE: 0, ATTESTATION: 1, VTPM: 2, APIC: 3, UEFI_MM: 4 } as const

/** Calls of the attestation protocol. @spec SVSM table 10 */
export const ATTESTATION_CALL = { ATTEST_SERVICES: 0, ATTEST_SINGLE_SERVICE: 1 } as const

/** Calls of the APIC protocol, version 1. */
export const APIC_CALL = {
  QUERY_FEATURES: 0,
  CONFIGURE: 1,
  READ_REGISTER: 2,
  WRITE_REGISTER: 3,
  CONFIGURE_VECTOR: 4
} as const

/** RCX of CONFIGURE. */
export const APIC_CONFIGURE = { QUERY: 0, DEREGISTER: 1, REGISTER: 2 } as const

/** RCX of CONFIGURE_VECTOR beside the vector. */
export const APIC_VECTOR = { ENABLE: 1 << 8, ALL: 1 << 9 } as const

/** Calls of the core protocol. @spec SVSM table 5 */
export const CORE_CALL = {
  REMAP_CA: 0,
  PVALIDATE: 1,
  CREATE_VCPU: 2,
  DELETE_VCPU: 3,
  DEPOSIT_MEM: 4,
  WITHDRAW_MEM: 5,
  QUERY_PROTOCOL: 6,
  CONFIGURE_VTOM: 7
} as const

/** Result codes. @spec SVSM table 4 */
export const SVSM_RESULT = {
  SUCCESS: 0,
  INCOMPLETE: 0x8000_0000,
  UNSUPPORTED_PROTOCOL: 0x8000_0001,
  UNSUPPORTED_CALL: 0x8000_0002,
  INVALID_ADDRESS: 0x8000_0003,
  INVALID_FORMAT: 0x8000_0004,
  INVALID_PARAMETER: 0x8000_0005,
  INVALID_REQUEST: 0x8000_0006,
  BUSY: 0x8000_0007,
  /** PVALIDATE and RMPADJUST failures: this plus the instruction's code; 0x10 means "unchanged" (CF=1). */
  FAIL_BASE: 0x8000_1000
} as const

/** The guest's own verdict, outside the 32-bit result space: the SVSM did not run. */
export const NOT_SERVED = 0x1_0000_0000

/** How the guest rings: GHCB page event 0x80000018 or MSR request 0x016. */
export type Ring = "page" | "msr"

/** Arguments of a call; each is exact below 2^53. */
export interface CallArguments {
  readonly rcx?: number
  readonly rdx?: number
  readonly r8?: number
}

const READ_RAX = readRegister(VMSA.rax)

interface PendingOperations {
  readonly area: number
  readonly markPending: Operation
  readonly takePending: Operation
}

const pendingOperations = (area: number): PendingOperations => ({
  area,
  markPending: write(area + CALLING_AREA.call_pending, 1, 1),
  takePending: xchg8(area + CALLING_AREA.call_pending, 0)
})

/** The guest's end of the SVSM on one vCPU: where its calling area is and how it rings. */
export class SvsmCaller {
  caGpa: number
  readonly #ring: Ring
  readonly #ghcb: Ghcb | null
  #pending: PendingOperations

  /** @param ghcb needed for the page form; the MSR form keeps and restores what the GHCB MSR held */
  constructor(caGpa: number, ring: Ring, ghcb: Ghcb | null) {
    this.caGpa = caGpa
    this.#ring = ring
    this.#ghcb = ghcb
    this.#pending = pendingOperations(caGpa)
  }

  /**
   * One SVSM call: registers, call_pending, ring, and the atomic look whether it was served. Repeats what the SVSM
   * answers as INCOMPLETE or BUSY.
   * @returns the 32-bit result, or NOT_SERVED
   * @spec SVSM 5
   */
  *call(protocol: number, call: number, values: CallArguments): Program<number> {
    for (;;) {
      const result = yield* this.once(protocol, call, values)
      if (result !== SVSM_RESULT.INCOMPLETE && result !== SVSM_RESULT.BUSY) return result
    }
  }

  /** The same, not repeated: for calls that say in a register how far they came. */
  *once(protocol: number, call: number, { rcx = 0, rdx = 0, r8 = 0 }: CallArguments): Program<number> {
    // REMAP_CA changes caGpa only after its success: the exchange below must look at the area that was rung.
    const { markPending, takePending } = this.#pendingOf(this.caGpa)
    yield sequence([
      writeRegister(VMSA.rax, call, protocol),
      writeRegister(VMSA.rcx, lo32(rcx), hi32(rcx)),
      writeRegister(VMSA.rdx, lo32(rdx), hi32(rdx)),
      writeRegister(VMSA.r8, lo32(r8), hi32(r8)),
      markPending
    ])
    const rang = this.#ring === "page" ? yield* this.#ghcb!.runVmpl(SVSM_VMPL) : yield* this.#ringMsr()
    const old = (yield takePending).lo
    return !rang || old !== 0 ? NOT_SERVED : (yield READ_RAX).lo
  }

  /** Operations on the byte of an area: they are the same until the area moves. */
  #pendingOf(area: number): PendingOperations {
    if (this.#pending.area !== area) this.#pending = pendingOperations(area)
    return this.#pending
  }

  *#ringMsr(): Program<boolean> {
    const { lo, hi } = yield rdmsr(MSR_GHCB)
    const error = yield* runVmplMsr(SVSM_VMPL)
    yield wrmsr(MSR_GHCB, lo, hi)
    return error === 0
  }
}
