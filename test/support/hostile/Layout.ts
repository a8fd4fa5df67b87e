import { PAGE_SIZE } from "@vmpl-lab/sev-es"

const MIB = 0x10_0000
export const RAM_SIZE = 6 * MIB
/** The last 2 MiB of RAM are one page, of which these are parts; they begin as the host's to give. */
export const LARGE = { gpa: 4 * MIB, size: 2 * MIB } as const
export const LARGE_PARTS = [0, 5, 0x1ff].map((page) => LARGE.gpa + page * PAGE_SIZE)
export const SVSM = { gpa: RAM_SIZE, size: 2 * MIB } as const
export const FIRMWARE = { gpa: 8 * MIB, size: 16 * PAGE_SIZE } as const
/** Buffers of the migration service, so many pages each: the host's, until the guest has them made private. */
export const SHARED = { gpa: 3 * MIB, buffers: 4, pages: 12 } as const
const SHARED_END = SHARED.gpa + SHARED.buffers * SHARED.pages * PAGE_SIZE
export const isShared = (gpa: number): boolean => gpa >= SHARED.gpa && gpa < SHARED_END
/** Up to here guest RAM is validated, but for the pages that the calls play with. */
export const VALIDATED_UP_TO = 2 * MIB
/** SVSM CPUs; the guest may name two more. */
export const CPUS = [0, 1] as const
export type Cpu = (typeof CPUS)[number]
export const VCPUS = 4

export const ASID = 1

/** Pages of VMPL0 that hold secrets: code, parameters, and from the data behind the CPUs' pages on so many. */
export const SECRET_PAGES = [0, 1, 2, ...Array.from({ length: 24 }, (_, i) => 0x10 + i)]
/** Where the GHCBs' bytes go while an interrupt has them; the heap does not come that far. */
export const BACKUP_PAGE = 0x100
/** Doorbell pages, which are the host's too. */
export const DOORBELL_PAGE = 0x110

/** Pages that services get when they ask for some; they are not validated before. */
export const HEAP = { gpa: SVSM.gpa + 12 * PAGE_SIZE, size: 0x40 * PAGE_SIZE } as const
