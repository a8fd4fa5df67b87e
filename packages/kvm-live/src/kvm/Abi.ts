/**
 * Numbers of the KVM API on x86-64, as Linux' uapi headers have them: ioctl requests with the size of their argument in
 * them, offsets in the page shared with a vCPU, exit reasons, capabilities.
 */

/** Version that KVM_GET_API_VERSION must answer. */
export const KVM_API_VERSION = 12

/** ioctl requests. */
export const KVM = {
  GET_API_VERSION: 0xae00,
  CREATE_VM: 0xae01,
  CHECK_EXTENSION: 0xae03,
  GET_VCPU_MMAP_SIZE: 0xae04,
  GET_SUPPORTED_CPUID: 0xc008_ae05,
  CREATE_VCPU: 0xae41,
  SET_USER_MEMORY_REGION: 0x4020_ae46,
  SET_TSS_ADDR: 0xae47,
  CREATE_IRQCHIP: 0xae60,
  RUN: 0xae80,
  GET_REGS: 0x8090_ae81,
  SET_REGS: 0x4090_ae82,
  GET_SREGS: 0x8138_ae83,
  SET_SREGS: 0x4138_ae84,
  GET_LAPIC: 0x8400_ae8e,
  SET_LAPIC: 0x4400_ae8f,
  SET_CPUID2: 0x4008_ae90,
  GET_MP_STATE: 0x8004_ae98,
  SET_MP_STATE: 0x4004_ae99,
  ENABLE_CAP: 0x4068_aea3,
  SIGNAL_MSI: 0x4020_aea5
} as const

/** Capabilities that matter here, by number. */
export const KVM_CAP = {
  IRQCHIP: 0,
  USER_MEMORY: 3,
  NR_VCPUS: 9,
  MP_STATE: 14,
  SYNC_MMU: 16,
  MAX_VCPUS: 66,
  SYNC_REGS: 74,
  SIGNAL_MSI: 77,
  SPLIT_IRQCHIP: 121,
  MAX_VCPU_ID: 128,
  IMMEDIATE_EXIT: 136,
  HALT_POLL: 182,
  VM_COPY_ENC_CONTEXT_FROM: 197,
  MEMORY_ATTRIBUTES: 233,
  GUEST_MEMFD: 234,
  VM_TYPES: 235,
  PLANES: 239,
  PLANES_FPU: 240
} as const
export type CapabilityName = keyof typeof KVM_CAP

/** struct kvm_run. */
export const RUN = {
  immediate_exit: 1,
  exit_reason: 8,
  io_direction: 32,
  io_size: 33,
  io_port: 34,
  io_data_offset: 40,
  fail_entry_reason: 32,
  internal_suberror: 32,
  kvm_valid_regs: 288,
  kvm_dirty_regs: 296,
  /** struct kvm_sync_regs. */
  regs: 304
} as const

/** kvm_run.kvm_valid_regs and kvm_dirty_regs. */
export const SYNC_REGS = { REGS: 1, SREGS: 2, EVENTS: 4 } as const

/** kvm_run.exit_reason. */
export const KVM_EXIT = {
  UNKNOWN: 0,
  EXCEPTION: 1,
  IO: 2,
  HYPERCALL: 3,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  IRQ_WINDOW_OPEN: 7,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  INTERNAL_ERROR: 17,
  SYSTEM_EVENT: 24,
  MEMORY_FAULT: 39
} as const

const EXIT_NAMES = new Map<number, string>(Object.entries(KVM_EXIT).map(([name, value]) => [value, name]))

/** Name of an exit reason, such as KVM_EXIT_SHUTDOWN. */
export const kvmExitName = (reason: number): string => `KVM_EXIT_${EXIT_NAMES.get(reason) ?? reason}`

/** struct kvm_regs: rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 to r15, rip, rflags. */
export const REGS = { BYTES: 144, rax: 0, rbx: 8, rsi: 32, rdi: 40, rsp: 48, rip: 128, rflags: 136 } as const

/** struct kvm_sregs. Segments are 24 bytes each: base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable. */
export const SREGS = {
  BYTES: 312,
  cs: 0,
  ds: 24,
  es: 48,
  fs: 72,
  gs: 96,
  ss: 120,
  cr0: 224,
  cr3: 240,
  cr4: 248,
  efer: 264
} as const
export const SEGMENT = {
  base: 0,
  limit: 8,
  selector: 12,
  type: 14,
  present: 15,
  dpl: 16,
  db: 17,
  s: 18,
  l: 19,
  g: 20
} as const

/** struct kvm_userspace_memory_region. */
export const MEMORY_REGION = {
  BYTES: 32,
  slot: 0,
  flags: 4,
  guest_phys_addr: 8,
  memory_size: 16,
  userspace_addr: 24
} as const

/** struct kvm_msi. */
export const MSI = { BYTES: 32, address_lo: 0, data: 8 } as const

/** struct kvm_cpuid2: a header of 8 bytes and 40 an entry. */
export const CPUID2 = { HEADER: 8, ENTRY: 40 } as const

/** struct kvm_enable_cap. */
export const ENABLE_CAP = { BYTES: 104, cap: 0, args: 8 } as const

/** struct kvm_lapic_state: the APIC's registers at their offsets. */
export const LAPIC = { BYTES: 1_024, spurious: 0xf0, SOFTWARE_ENABLE: 0x100 } as const
