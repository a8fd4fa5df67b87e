/** What a guest without an SVSM is told of the machine that it finds itself on. */
export interface BarePlan {
  readonly vcpus: number
  /** First of the pages that the guest uses for itself. */
  readonly heapGpa: number
  /** An SNP guest validates its pages, and has shared ones made shared. */
  readonly snp: boolean
  /** GPA of the CPUID page, from the firmware's metadata; without one the guest asks the hypervisor. */
  readonly cpuidGpa?: number
}

/** Page of real-mode code at which a started AP goes on, below 1 MiB. */
export const BARE_AP_ENTRY_GPA = 0x8000

/** Pages of one vCPU, as offsets into its block. None of them is 2 MiB aligned but the unused first one. */
export const BARE_BLOCK = { GHCB: 0x1000, BACKUP: 0x2000, VMSA: 0x3000, STACK: 0x4000, SIZE: 0x8000 } as const

/** Pages that all vCPUs share: who is up, by one byte each, and the AP jump table. */
export const BARE_COMMON = { FLAGS: 0x1000, JUMP_TABLE: 0x2000, SIZE: 0x8000 } as const

export const commonPage = ({ heapGpa }: BarePlan, offset: number): number => heapGpa + offset

export const blockPage = ({ heapGpa }: BarePlan, apicId: number, offset: number): number =>
  heapGpa + BARE_COMMON.SIZE + apicId * BARE_BLOCK.SIZE + offset
