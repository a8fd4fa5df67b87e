import {
  ACCEPTANCE,
  ATTESTATION_CALL,
  CORE_CALL,
  MIGRATION_CALL,
  MIGRATION_PROTOCOL,
  PROTOCOL,
  VTPM_CALL
} from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { SvsmBehaviour } from "@vmpl-lab/svsm"

/** What is taken away from the SVSM to see what it is there for. */
export type Without = "nothing" | "lock" | "marks" | "holds" | "kept"

/** Two calls that race. */
export interface Race {
  readonly calls: readonly [RaceCall, RaceCall]
  readonly start: Start
  readonly without: Without
  /** The specification's when left out. */
  readonly behaviour?: SvsmBehaviour
}

/** Guest pages, by GFN. P is what the calls are about. */
export const GFN = { CA0: 1, CA1: 2, LIST0: 3, LIST1: 4, P: 5, Q: 6, VMSA1: 7, SPARE: 8, END: 9 } as const
export const SVSM_GFN = 9
export const SVSM_PAGES = 4
export const GUEST_VMSA0 = (SVSM_GFN + 3) * PAGE_SIZE
export const P = GFN.P * PAGE_SIZE
export const PAGES = SVSM_GFN + SVSM_PAGES
export const FRAME_OFFSET = 0x20
export const ASID = 1
export const ALL = 0xf
export const CPUS = [0, 1] as const
export type Cpu = (typeof CPUS)[number]

/** How page P begins. */
export type Start = "validated" | "unvalidated" | "vmsa" | "deposited" | "guarded" | "parked"

/** Behind the SVSM: GHCBs, two pages apart, and the pages that the host reads. */
export const BUFFER_PAGES = 2
export const BUFFER = (PAGES + 4) * PAGE_SIZE

/** Protocol of a service with one buffer. */
export const SERVICE = 0x4000_0000
/** Where in a list's page the operation of the attestation protocol is. */
export const OPERATION = 0x800
/** What is copied into a guest's buffer, by whichever service. */
export const REPLY = new Uint8Array(32).fill(0xee)

export const list = (cpu: Cpu): number => (cpu === 0 ? GFN.LIST0 : GFN.LIST1) * PAGE_SIZE
export interface Call {
  readonly protocol?: number
  readonly call: number
  readonly rcx: number
  readonly rdx?: number
  /** APIC ID of a new vCPU where left out. */
  readonly r8?: number
  /** In place of a call the level has left with a nested page fault at P. */
  readonly faults?: true
  readonly entries?: ReadonlyArray<readonly [gpa: number, validate: boolean]>
}
const listed = (cpu: Cpu, call: number, entries: Call["entries"]): Call => ({ call, rcx: list(cpu), entries: entries! })

/** A call of the migration service with its shared buffer. */
const moving = (call: number): Call => ({
  protocol: MIGRATION_PROTOCOL,
  call,
  rcx: BUFFER,
  rdx: BUFFER_PAGES * PAGE_SIZE,
  r8: 1
})

/** Calls that a vCPU may make, by name. */
export const RACE_CALLS = {
  validate: (cpu: Cpu) => listed(cpu, CORE_CALL.PVALIDATE, [[P, true]]),
  rescind: (cpu: Cpu) => listed(cpu, CORE_CALL.PVALIDATE, [[P, false]]),
  "rescind and validate": (cpu: Cpu) =>
    listed(cpu, CORE_CALL.PVALIDATE, [
      [P, false],
      [P, true]
    ]),
  "rescind the other's list": (cpu: Cpu) => listed(cpu, CORE_CALL.PVALIDATE, [[list(cpu === 0 ? 1 : 0), false]]),
  create: () => ({ call: CORE_CALL.CREATE_VCPU, rcx: P, rdx: GFN.Q * PAGE_SIZE }),
  "create with its area in P": () => ({ call: CORE_CALL.CREATE_VCPU, rcx: GFN.Q * PAGE_SIZE, rdx: P }),
  remap: () => ({ call: CORE_CALL.REMAP_CA, rcx: P }),
  delete: () => ({ call: CORE_CALL.DELETE_VCPU, rcx: P }),
  "delete the other": (cpu: Cpu) => ({
    call: CORE_CALL.DELETE_VCPU,
    rcx: cpu === 0 ? GFN.VMSA1 * PAGE_SIZE : GUEST_VMSA0
  }),
  deposit: (cpu: Cpu) => listed(cpu, CORE_CALL.DEPOSIT_MEM, [[P, false]]),
  withdraw: (cpu: Cpu) => ({ call: CORE_CALL.WITHDRAW_MEM, rcx: list(cpu) }),
  "withdraw to P": () => ({ call: CORE_CALL.WITHDRAW_MEM, rcx: P }),
  "TPM command in P": () => ({ protocol: PROTOCOL.VTPM, call: VTPM_CALL.COMMAND, rcx: P }),
  "report to P": (cpu: Cpu) => ({
    protocol: PROTOCOL.ATTESTATION,
    call: ATTESTATION_CALL.ATTEST_SERVICES,
    rcx: list(cpu) + OPERATION
  }),
  "service that fills P": () => ({ protocol: SERVICE, call: 0, rcx: P }),
  accept: () => ({ protocol: ACCEPTANCE.PROTOCOL, call: ACCEPTANCE.CALL.ACCEPT, rcx: P, rdx: 1, r8: 0 }),
  export: () => moving(MIGRATION_CALL.EXPORT),
  import: () => moving(MIGRATION_CALL.IMPORT),
  resume: (cpu: Cpu) => ({ ...moving(MIGRATION_CALL.RESUME), rcx: list(cpu) }),
  "fault at P": () => ({ ...moving(MIGRATION_CALL.PARK), faults: true as const }),
  "validate the buffer": (cpu: Cpu) => listed(cpu, CORE_CALL.PVALIDATE, [[BUFFER, true]])
} as const satisfies Record<string, (cpu: Cpu) => Call>
export type RaceCall = keyof typeof RACE_CALLS

/** Calls for which a guest has to be on its way to another machine. */
export const isMoving = (race: Race): boolean =>
  race.calls.some((call) => ["export", "import", "resume", "fault at P"].includes(call))
