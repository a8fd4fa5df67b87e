/**
 * Names, offsets and sizes as AMD publishes them, typed in from the manuals and from other projects' headers and not
 * taken from the sources under test. A block of equal fields is one line: first offset, size, names in order.
 */
type Block = readonly [offset: number, size: number, names: string]

const expand = (blocks: ReadonlyArray<Block>): ReadonlyArray<readonly [string, number, number]> =>
  blocks.flatMap(([offset, size, names]) =>
    names.split(" ").map((name, index) => [name, offset + index * size, size] as const)
  )

/** @spec APM2 appendix B table B-4; Linux `struct sev_es_save_area` */
export const VMSA_PUBLISHED = expand([
  [0x000, 16, "es cs ss ds fs gs gdtr ldtr idtr tr"],
  [0x0a0, 8, "pl0_ssp pl1_ssp pl2_ssp pl3_ssp u_cet"],
  [0x0ca, 1, "vmpl cpl"],
  [0x0d0, 8, "efer"],
  [0x0e0, 8, "perf_ctl0 perf_ctr0 perf_ctl1 perf_ctr1 perf_ctl2 perf_ctr2"],
  [0x110, 8, "perf_ctl3 perf_ctr3 perf_ctl4 perf_ctr4 perf_ctl5 perf_ctr5"],
  [0x140, 8, "xss cr4 cr3 cr0 dr7 dr6 rflags rip dr0 dr1 dr2 dr3"],
  [0x1a0, 8, "dr0_addr_mask dr1_addr_mask dr2_addr_mask dr3_addr_mask"],
  [0x1c0, 8, "instr_retired_ctr perf_ctr_global_sts perf_ctr_global_ctl"],
  [0x1d8, 8, "rsp s_cet ssp isst_addr rax star lstar cstar sfmask kernel_gs_base"],
  [0x228, 8, "sysenter_cs sysenter_esp sysenter_eip cr2"],
  [0x268, 8, "g_pat dbgctl br_from br_to last_excp_from last_excp_to debug_extn_ctl"],
  [0x2e0, 8, "spec_ctrl"],
  [0x2e8, 4, "pkru tsc_aux"],
  [0x2f0, 8, "guest_tsc_scale guest_tsc_offset reg_prot_nonce rcx rdx rbx secure_avic_control rbp rsi rdi"],
  [0x340, 8, "r8 r9 r10 r11 r12 r13 r14 r15"],
  [0x388, 8, "checksum_pa"],
  [0x390, 8, "guest_exit_info_1 guest_exit_info_2 guest_exit_int_info guest_nrip sev_features vintr_ctrl"],
  [0x3c0, 8, "guest_exit_code virtual_tom tlb_id pcpu_id event_inj xcr0"],
  [0x3f0, 16, "xsave_valid_bitmap"],
  [0x400, 8, "x87_dp"],
  [0x408, 4, "mxcsr"],
  [0x40c, 2, "x87_ftw x87_fsw x87_fcw x87_fop x87_ds x87_cs"],
  [0x418, 8, "x87_rip"],
  [0x420, 80, "fpreg_x87"],
  [0x470, 256, "fpreg_xmm fpreg_ymm"],
  [0x670, 256, "lbr_stack_from_to"],
  [0x770, 8, "lbr_select ibs_fetch_ctl ibs_fetch_linear_addr ibs_op_ctl ibs_op_rip ibs_op_data ibs_op_data2"],
  [0x7a8, 8, "ibs_op_data3 ibs_dc_linear_addr ibs_br_target ibs_fetch_extd_ctl"],
  [0x900, 32, "guest_intercept_words guest_msr_intercepts"],
  [0x980, 64, "fpreg_ki"],
  [0x9c0, 512, "fpreg_zmmhi"],
  [0xbc0, 1024, "fpreg_hizmm"]
])

/** @spec APM2 appendix B table B-1; Linux `struct vmcb_control_area` */
export const VMCB_PUBLISHED = expand([
  [0x000, 4, "intercept_cr intercept_dr intercept_exceptions intercept_word3 intercept_word4 intercept_word5"],
  [0x03c, 2, "pause_filter_thresh pause_filter_count"],
  [0x040, 8, "iopm_base_pa msrpm_base_pa tsc_offset"],
  [0x058, 4, "asid"],
  [0x05c, 1, "tlb_ctl erap_ctl"],
  [0x060, 4, "int_ctl int_vector int_state"],
  [0x070, 8, "exit_code exit_info_1 exit_info_2"],
  [0x088, 4, "exit_int_info exit_int_info_err"],
  [0x090, 8, "nested_ctl avic_vapic_bar ghcb_gpa"],
  [0x0a8, 4, "event_inj event_inj_err"],
  [0x0b0, 8, "nested_cr3 virt_ext"],
  [0x0c0, 4, "clean"],
  [0x0c8, 8, "next_rip"],
  [0x0d0, 1, "insn_len"],
  [0x0d1, 15, "insn_bytes"],
  [0x0e0, 8, "avic_backing_page"],
  [0x0f0, 8, "avic_logical_id avic_physical_id"],
  [0x108, 8, "vmsa_pa vmgexit_rax"],
  [0x118, 1, "vmgexit_cpl"],
  [0x120, 2, "bus_lock_counter"],
  [0x134, 4, "update_irr"],
  [0x138, 8, "allowed_sev_features guest_sev_features"],
  [0x150, 32, "requested_irr"],
  [0x3e0, 32, "reserved_sw"]
])

/** Counted from the save area's first byte, as in the manual. @spec APM2 appendix B table B-2; Linux `struct vmcb_save_area` */
export const VMCB_SAVE_PUBLISHED = expand([
  [0x000, 16, "es cs ss ds fs gs gdtr ldtr idtr tr"],
  [0x0ca, 1, "vmpl cpl"],
  [0x0d0, 8, "efer"],
  [0x0e0, 8, "perf_ctl0 perf_ctr0 perf_ctl1 perf_ctr1 perf_ctl2 perf_ctr2"],
  [0x110, 8, "perf_ctl3 perf_ctr3 perf_ctl4 perf_ctr4 perf_ctl5 perf_ctr5"],
  [0x148, 8, "cr4 cr3 cr0 dr7 dr6 rflags rip"],
  [0x1c0, 8, "instr_retired_ctr perf_ctr_global_sts perf_ctr_global_ctl"],
  [0x1d8, 8, "rsp s_cet ssp isst_addr rax star lstar cstar sfmask kernel_gs_base"],
  [0x228, 8, "sysenter_cs sysenter_esp sysenter_eip cr2"],
  [0x268, 8, "g_pat dbgctl br_from br_to last_excp_from last_excp_to debug_extn_ctl"],
  [0x2e0, 8, "spec_ctrl"],
  [0x670, 256, "lbr_stack_from_to"],
  [0x770, 8, "lbr_select ibs_fetch_ctl ibs_fetch_linear_addr ibs_op_ctl ibs_op_rip ibs_op_data ibs_op_data2"],
  [0x7a8, 8, "ibs_op_data3 ibs_dc_linear_addr ibs_br_target ibs_fetch_extd_ctl"]
])

/** @spec GHCB 2.3 table 3; Linux `struct ghcb` */
export const GHCB_PUBLISHED = expand([
  [0x0cb, 1, "cpl"],
  [0x140, 8, "xss"],
  [0x160, 8, "dr7"],
  [0x178, 8, "rip"],
  [0x1d8, 8, "rsp"],
  [0x1f8, 8, "rax"],
  [0x308, 8, "rcx rdx rbx"],
  [0x328, 8, "rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15"],
  [0x390, 8, "sw_exit_code sw_exit_info_1 sw_exit_info_2 sw_scratch"],
  [0x3e8, 8, "xcr0"],
  [0x3f0, 16, "valid_bitmap"],
  [0x400, 8, "x87_state_gpa"],
  [0x800, 0x7f0, "shared_buffer"],
  [0xffa, 2, "protocol_version"],
  [0xffc, 4, "ghcb_usage"]
])

/** Bits of the GHCB's valid bitmap, as the manual numbers them. */
export const VALID_BITS = {
  cpl: 25,
  xss: 40,
  dr7: 44,
  rip: 47,
  rsp: 59,
  rax: 63,
  rcx: 97,
  rdx: 98,
  rbx: 99,
  rbp: 101,
  rsi: 102,
  rdi: 103,
  r8: 104,
  r15: 111,
  sw_exit_code: 114,
  sw_exit_info_1: 115,
  sw_exit_info_2: 116,
  sw_scratch: 117,
  xcr0: 125
} as const

/** @spec SNP-ABI "secrets page"; SVSM table 1 */
export const SECRETS_PUBLISHED = expand([
  [0x000, 4, "version imi_en fms"],
  [0x010, 16, "gosvw"],
  [0x020, 32, "vmpck0 vmpck1 vmpck2 vmpck3"],
  [0x0a0, 96, "guest_usage"],
  [0x100, 64, "vmsa_tweak_bitmap"],
  [0x140, 8, "svsm_base svsm_size svsm_caa"],
  [0x158, 4, "svsm_max_version"],
  [0x15c, 1, "svsm_guest_vmpl"],
  [0x160, 4, "tsc_factor"]
])

/** @spec SNP-ABI "CPUID page"; Linux `struct snp_cpuid_table` */
export const CPUID_PAGE_PUBLISHED = expand([
  [0x0, 4, "count reserved1"],
  [0x8, 8, "reserved2"]
])

/** @spec SNP-ABI "CPUID page"; Linux `struct snp_cpuid_fn` */
export const CPUID_FUNCTION_PUBLISHED = expand([
  [0x00, 4, "eax_in ecx_in"],
  [0x08, 8, "xcr0_in xss_in"],
  [0x18, 4, "eax ebx ecx edx"],
  [0x28, 8, "reserved"]
])
