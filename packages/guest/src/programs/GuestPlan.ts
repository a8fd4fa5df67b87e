import type { Program } from "@vmpl-lab/vmpl"
import type { Ring } from "../SvsmCall.ts"

/** Kinds of calls in a workload. */
export const CALL_KIND = { QUERY_PROTOCOL: 0, PVALIDATE: 1, REMAP_CA: 2 } as const

/** What the guest's boot code is configured with: the machine it finds and the calls it makes. */
export interface GuestPlan {
  readonly vcpus: number
  /** GPA of the secrets page, from the firmware's metadata. */
  /** GPA of the secrets page; 0 where the loader has told of none. */
  readonly secretsGpa: number
  /** First of the pages that the guest uses for itself. */
  readonly heapGpa: number
  readonly ring: Ring
  /** Calls of one vCPU, one CALL_KIND each, in order. */
  readonly calls: (apicId: number) => Uint8Array
  readonly report: GuestReport
  /** What each vCPU does once it is up, instead of its calls. */
  readonly body?: GuestBody
  /** Level at which the guest boots, 1 or 2; GUEST_VMPL when left out. */
  readonly guestVmpl?: number
  /** The guest is about to come from another machine: this one's boot processor starts no others. */
  readonly incoming?: boolean
  /** Less privileged levels that each vCPU gets beside it, in ascending order. */
  readonly lowerLevels?: ReadonlyArray<number>
}

/** A vCPU's program from where the boot code ends: its calling area is in place, and its GHCB is set up. */
export type GuestBody = (plan: GuestPlan, apicId: number, caGpa: number) => Program

/** What the guest tells the world: its console, as it were. Not part of the architecture. */
export interface GuestReport {
  /** The vCPU is up at VMPL2 and starts its calls. */
  readonly ready: (apicId: number) => void
  /** One call was made: kind and 32-bit result (or NOT_SERVED). */
  readonly called: (apicId: number, kind: number, result: number) => void
  /** The vCPU has made all its calls. */
  readonly done: (apicId: number) => void
  /** The vCPU and all its levels are up, by its own TSC in ns. */
  readonly up?: (apicId: number, ns: number) => void
  /** The vCPU has accepted its share of memory. */
  readonly accepted?: (apicId: number, share: AcceptedShare) => void
}

/** One vCPU's share of the memory that a guest accepts. Times are of its own TSC, in ns. */
export interface AcceptedShare {
  readonly bytes: number
  readonly beginNs: number
  readonly endNs: number
  /** Time in page state changes. */
  readonly pageStateNs: number
  /** Calls that accept, repeated ones not counted. */
  readonly calls: number
  /** 2 MiB entries that were refused with FAIL_SIZEMISMATCH and done as 4 KiB entries. */
  readonly fallbacks: number
}

/** Page of real-mode code at which APs start, below 1 MiB. */
export const AP_TRAMPOLINE_GPA = 0x8000

/** Pages of the guest's heap for one vCPU, as offsets into its block. */
export const BLOCK = {
  VMSA: 0x1000,
  CALLING_AREA: 0x2000,
  OTHER_CALLING_AREA: 0x3000,
  LIST: 0x4000,
  GHCB: 0x5000,
  /** The page that the workload validates and rescinds in turn. */
  TOGGLED: 0x6000,
  SIZE: 0x8000
} as const

/** Pages of the heap for one less privileged level of one vCPU, as offsets into its block. */
export const LEVEL_BLOCK = {
  /** Requests to a service at a more privileged level. */
  SERVICE: 0x0,
  VMSA: 0x1000,
  CALLING_AREA: 0x2000,
  GHCB: 0x3000,
  SIZE: 0x4000
} as const

/** Start of a level's block, behind all those of the vCPUs. */
export const levelBlockOf = (
  { heapGpa, vcpus, lowerLevels = [] }: Pick<GuestPlan, "heapGpa" | "vcpus" | "lowerLevels">,
  apicId: number,
  vmpl: number
): number => {
  const index = apicId * lowerLevels.length + lowerLevels.indexOf(vmpl)
  return heapGpa + vcpus * BLOCK.SIZE + index * LEVEL_BLOCK.SIZE
}

/** Start of a vCPU's block. A block is 32 KiB, so none of its pages but the unused first one is 2 MiB aligned. */
export const blockOf = ({ heapGpa }: Pick<GuestPlan, "heapGpa">, apicId: number): number =>
  heapGpa + apicId * BLOCK.SIZE
