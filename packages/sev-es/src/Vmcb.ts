import { layout, offsetsOf } from "./Layout.ts"

/**
 * VMCB control area. With SEV-ES the save area at 0x400 holds no guest state.
 * @spec APM2 appendix B table B-1; Linux `struct vmcb_control_area`
 */
export const VMCB_FIELDS = layout([
  ["intercept_cr", 0x000, 4],
  ["intercept_dr", 0x004, 4],
  ["intercept_exceptions", 0x008, 4],
  ["intercept_word3", 0x00c, 4],
  ["intercept_word4", 0x010, 4],
  ["intercept_word5", 0x014, 4],
  ["pause_filter_thresh", 0x03c, 2],
  ["pause_filter_count", 0x03e, 2],
  ["iopm_base_pa", 0x040, 8],
  ["msrpm_base_pa", 0x048, 8],
  ["tsc_offset", 0x050, 8],
  ["asid", 0x058, 4],
  ["tlb_ctl", 0x05c, 1],
  ["int_ctl", 0x060, 4],
  ["int_vector", 0x064, 4],
  ["int_state", 0x068, 4],
  ["exit_code", 0x070, 8],
  ["exit_info_1", 0x078, 8],
  ["exit_info_2", 0x080, 8],
  ["exit_int_info", 0x088, 4],
  ["exit_int_info_err", 0x08c, 4],
  ["nested_ctl", 0x090, 8],
  ["avic_vapic_bar", 0x098, 8],
  ["ghcb_gpa", 0x0a0, 8],
  ["event_inj", 0x0a8, 4],
  ["event_inj_err", 0x0ac, 4],
  ["nested_cr3", 0x0b0, 8],
  ["virt_ext", 0x0b8, 8],
  ["clean", 0x0c0, 4],
  ["next_rip", 0x0c8, 8],
  ["insn_len", 0x0d0, 1],
  ["insn_bytes", 0x0d1, 15],
  ["avic_backing_page", 0x0e0, 8],
  ["avic_logical_id", 0x0f0, 8],
  ["avic_physical_id", 0x0f8, 8],
  ["vmsa_pa", 0x108, 8],
  ["vmgexit_rax", 0x110, 8],
  ["vmgexit_cpl", 0x118, 1],
  ["bus_lock_counter", 0x120, 2],
  ["allowed_sev_features", 0x138, 8],
  ["guest_sev_features", 0x140, 8],
  ["reserved_sw", 0x3e0, 32]
])

/** Byte offsets of the VMCB control fields by name. */
export const VMCB = offsetsOf(VMCB_FIELDS)

/** nested_ctl (0x90). */
export const NESTED_CTL = { NP_ENABLE: 1, SEV_ENABLE: 2, SEV_ES_ENABLE: 4, SSS_CHECK_ENABLE: 0x10 } as const

/** int_ctl (0x60). @spec APM2 15.21.2 */
export const INT_CTL = {
  V_TPR_MASK: 0xff,
  V_IRQ: 1 << 8,
  V_GIF: 1 << 9,
  V_NMI: 1 << 11,
  V_NMI_MASK: 1 << 12,
  V_INTR_PRIO_SHIFT: 16,
  V_IGN_TPR: 1 << 20,
  V_INTR_MASKING: 1 << 24,
  V_GIF_ENABLE: 1 << 25,
  V_NMI_ENABLE: 1 << 26,
  X2AVIC_ENABLE: 1 << 30,
  AVIC_ENABLE: 0x8000_0000
} as const

/** int_state (0x68). For an SEV-ES guest bit 1 shows RFLAGS.IF, which the host cannot read. @spec APM2 15.21.5 */
export const INT_STATE = { INTERRUPT_SHADOW: 1, GUEST_INTERRUPT_MASK: 2 } as const

/** virt_ext (0xb8). */
export const VIRT_EXT = { LBR_VIRTUALIZATION: 1, VIRTUAL_VMLOAD_VMSAVE: 2 } as const

/** tlb_ctl (0x5c). */
export const TLB_CONTROL = { DO_NOTHING: 0, FLUSH_ALL_ASID: 1, FLUSH_ASID: 3, FLUSH_ASID_LOCAL: 7 } as const

/** Clean bits (0xc0): a set bit tells the CPU that the group is unchanged since the last VMRUN of this VMCB. */
export const CLEAN = {
  INTERCEPTS: 1 << 0,
  PERM_MAP: 1 << 1,
  ASID: 1 << 2,
  INTR: 1 << 3,
  NPT: 1 << 4,
  CR: 1 << 5,
  DR: 1 << 6,
  DT: 1 << 7,
  SEG: 1 << 8,
  CR2: 1 << 9,
  LBR: 1 << 10,
  AVIC: 1 << 11,
  SW: 1 << 31
} as const
