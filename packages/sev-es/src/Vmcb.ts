import { layout, offsetsOf } from "./Layout.ts"

/**
 * VMCB control area. With SEV-ES the save area at 0x400 holds no guest state. `nested_ctl` and `virt_ext` are called
 * `misc_ctl` and `misc_ctl2` by later Linux; `update_irr` and `requested_irr` serve Secure AVIC.
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
  ["erap_ctl", 0x05d, 1],
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
  ["update_irr", 0x134, 4],
  ["allowed_sev_features", 0x138, 8],
  ["guest_sev_features", 0x140, 8],
  ["requested_irr", 0x150, 32],
  ["reserved_sw", 0x3e0, 32]
])

/** Byte offsets of the VMCB control fields by name. */
export const VMCB = offsetsOf(VMCB_FIELDS)

/** Where the save area begins; tables of the save area count from here, `VMCB_SAVE_FIELDS` from the page's first byte. */
export const VMCB_SAVE_AREA = 0x400

/**
 * State-save area of a VMCB: the guest's registers when it has no SEV-ES. Those that VMRUN does not swap, RBX to R15
 * and the x87, SSE and AVX state, have no place in it.
 * @spec APM2 appendix B table B-2; Linux `struct vmcb_save_area`
 */
export const VMCB_SAVE_FIELDS = layout([
  ["es", 0x400, 16],
  ["cs", 0x410, 16],
  ["ss", 0x420, 16],
  ["ds", 0x430, 16],
  ["fs", 0x440, 16],
  ["gs", 0x450, 16],
  ["gdtr", 0x460, 16],
  ["ldtr", 0x470, 16],
  ["idtr", 0x480, 16],
  ["tr", 0x490, 16],
  ["vmpl", 0x4ca, 1],
  ["cpl", 0x4cb, 1],
  ["efer", 0x4d0, 8],
  ["perf_ctl0", 0x4e0, 8],
  ["perf_ctr0", 0x4e8, 8],
  ["perf_ctl1", 0x4f0, 8],
  ["perf_ctr1", 0x4f8, 8],
  ["perf_ctl2", 0x500, 8],
  ["perf_ctr2", 0x508, 8],
  ["perf_ctl3", 0x510, 8],
  ["perf_ctr3", 0x518, 8],
  ["perf_ctl4", 0x520, 8],
  ["perf_ctr4", 0x528, 8],
  ["perf_ctl5", 0x530, 8],
  ["perf_ctr5", 0x538, 8],
  ["cr4", 0x548, 8],
  ["cr3", 0x550, 8],
  ["cr0", 0x558, 8],
  ["dr7", 0x560, 8],
  ["dr6", 0x568, 8],
  ["rflags", 0x570, 8],
  ["rip", 0x578, 8],
  ["instr_retired_ctr", 0x5c0, 8],
  ["perf_ctr_global_sts", 0x5c8, 8],
  ["perf_ctr_global_ctl", 0x5d0, 8],
  ["rsp", 0x5d8, 8],
  ["s_cet", 0x5e0, 8],
  ["ssp", 0x5e8, 8],
  ["isst_addr", 0x5f0, 8],
  ["rax", 0x5f8, 8],
  ["star", 0x600, 8],
  ["lstar", 0x608, 8],
  ["cstar", 0x610, 8],
  ["sfmask", 0x618, 8],
  ["kernel_gs_base", 0x620, 8],
  ["sysenter_cs", 0x628, 8],
  ["sysenter_esp", 0x630, 8],
  ["sysenter_eip", 0x638, 8],
  ["cr2", 0x640, 8],
  ["g_pat", 0x668, 8],
  ["dbgctl", 0x670, 8],
  ["br_from", 0x678, 8],
  ["br_to", 0x680, 8],
  ["last_excp_from", 0x688, 8],
  ["last_excp_to", 0x690, 8],
  ["debug_extn_ctl", 0x698, 8],
  ["spec_ctrl", 0x6e0, 8],
  ["lbr_stack_from_to", 0xa70, 256],
  ["lbr_select", 0xb70, 8],
  ["ibs_fetch_ctl", 0xb78, 8],
  ["ibs_fetch_linear_addr", 0xb80, 8],
  ["ibs_op_ctl", 0xb88, 8],
  ["ibs_op_rip", 0xb90, 8],
  ["ibs_op_data", 0xb98, 8],
  ["ibs_op_data2", 0xba0, 8],
  ["ibs_op_data3", 0xba8, 8],
  ["ibs_dc_linear_addr", 0xbb0, 8],
  ["ibs_br_target", 0xbb8, 8],
  ["ibs_fetch_extd_ctl", 0xbc0, 8]
])

/** Offsets in the VMCB page of the save area's fields by name. */
export const VMCB_SAVE = offsetsOf(VMCB_SAVE_FIELDS)

/** nested_ctl (0x90). */
export const NESTED_CTL = { NP_ENABLE: 1, SEV_ENABLE: 2, SEV_ES_ENABLE: 4, SSS_CHECK_ENABLE: 0x10 } as const

/** int_ctl (0x60). @spec APM2 15.21.2 */
export const INT_CTL = {
  /** CR8, 4 bits; the upper half of the field's byte should be zero. */
  V_TPR_MASK: 0x0f,
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
