import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { GuestRange, SvsmParameters } from "./Parameters.ts"

/** Offsets in the SVSM's range. Pages from ONLINE on are the SVSM's to validate. */
export const IMAGE = {
  /** Measured page: identity, and the entry points of boot processor and APs. */
  CODE: 0,
  BOOT_ENTRY: 0x10,
  AP_ENTRY: 0x20,
  /** Unmeasured page: SvsmParameters. */
  PARAMETERS: 0x1000,
  /** One byte per vCPU: it has come up. */
  ONLINE: 0x2000,
  /** VMSA of the guest's boot processor. */
  GUEST_VMSA: 0x3000,
  /** Two pages per vCPU: VMSA and GHCB. */
  PER_CPU: 0x4000,
  PER_CPU_SIZE: 0x2000
} as const

/** Pages of a vCPU behind those of all, where the SVSM takes interrupts. */
const INTERRUPT_PAGES = { BACKUP: 0, DOORBELL: PAGE_SIZE, SIZE: 2 * PAGE_SIZE } as const

/** GPA of the private page that keeps a vCPU's SVSM GHCB while a handler uses it. */
export const svsmBackupGpa = (base: number, vcpus: number, apicId: number): number =>
  base + IMAGE.PER_CPU + vcpus * IMAGE.PER_CPU_SIZE + apicId * INTERRUPT_PAGES.SIZE + INTERRUPT_PAGES.BACKUP

/** GPA of a vCPU's SVSM doorbell page, which is shared. */
export const svsmDoorbellGpa = (base: number, vcpus: number, apicId: number): number =>
  svsmBackupGpa(base, vcpus, apicId) + INTERRUPT_PAGES.DOORBELL

/** Shared pages for messages to the AMD-SP, at the end of the range. */
export const MESSAGE_PAGES = {
  REQUEST: 0x0000,
  RESPONSE: 0x1000,
  CERTIFICATES: 0x2000,
  CERTIFICATE_COUNT: 4,
  SIZE: 0x6000
} as const

/** GPA of the first of MESSAGE_PAGES. */
export const svsmMessageGpa = ({ gpa, size }: { readonly gpa: number; readonly size: number }): number =>
  gpa + size - MESSAGE_PAGES.SIZE

/** Fewest bytes of the range that are left for what services keep. */
const HEAP_MIN = 0x1_0000

/** Where the pages of vCPUs end, as an offset. */
const perCpuEnd = (vcpus: number, interrupts: boolean): number =>
  IMAGE.PER_CPU + vcpus * (IMAGE.PER_CPU_SIZE + (interrupts ? INTERRUPT_PAGES.SIZE : 0))

/** Size of the SVSM's range for a number of vCPUs: a multiple of 2 MiB. */
export const svsmRangeSize = (vcpus: number, interrupts = false): number =>
  Math.ceil((perCpuEnd(vcpus, interrupts) + HEAP_MIN + MESSAGE_PAGES.SIZE) / 0x20_0000) * 0x20_0000

/** What has no fixed use: behind the pages of vCPUs, before those of messages. */
export const svsmHeapRange = ({
  svsm,
  vcpus,
  interrupts
}: Pick<SvsmParameters, "svsm" | "vcpus" | "interrupts">): GuestRange => {
  const gpa = svsm.gpa + perCpuEnd(vcpus, interrupts !== undefined)
  return { gpa, size: Math.max(0, svsmMessageGpa(svsm) - gpa) }
}

/** GPA of a vCPU's SVSM VMSA. */
export const svsmVmsaGpa = (base: number, apicId: number): number =>
  base + IMAGE.PER_CPU + apicId * IMAGE.PER_CPU_SIZE + PAGE_SIZE

/** GPA of a vCPU's SVSM GHCB. */
export const svsmGhcbGpa = (base: number, apicId: number): number => base + IMAGE.PER_CPU + apicId * IMAGE.PER_CPU_SIZE

/**
 * The measured page. The SVSM of this model is a program and has no machine code: what is measured is its identity, so
 * the launch digest is that of this image and of no other SVSM.
 */
export const svsmCodePage = (): Uint8Array => {
  const bytes = new Uint8Array(PAGE_SIZE)
  bytes.set(new TextEncoder().encode("vmpl-lab SVSM core-protocol 1"), 0x100)
  return bytes
}
