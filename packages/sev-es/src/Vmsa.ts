// @section 4.2, 4.3
import { layout, offsetsOf } from "./Layout.ts"

/**
 * VMCB state-save area of an SEV-ES or SEV-SNP guest: all that software names, without reserved areas.
 *
 * Linux names nothing beyond the YMM image, and none of the performance counters. Counters, LBR stack and IBS stand
 * where the save area of a VMCB has them, which Linux patches for IBS confirm for this page. `checksum_pa` is the
 * firmware's: the address of an SEV-ES page's checksum, all ones for SEV-SNP.
 * @spec APM2 appendix B table B-4; Linux `struct sev_es_save_area`; OpenVMM `SevVmsa`; AMD-SP firmware `sev_es.c`
 */
export const VMSA_FIELDS = layout([
  ["es", 0x000, 16],
  ["cs", 0x010, 16],
  ["ss", 0x020, 16],
  ["ds", 0x030, 16],
  ["fs", 0x040, 16],
  ["gs", 0x050, 16],
  ["gdtr", 0x060, 16],
  ["ldtr", 0x070, 16],
  ["idtr", 0x080, 16],
  ["tr", 0x090, 16],
  ["pl0_ssp", 0x0a0, 8],
  ["pl1_ssp", 0x0a8, 8],
  ["pl2_ssp", 0x0b0, 8],
  ["pl3_ssp", 0x0b8, 8],
  ["u_cet", 0x0c0, 8],
  ["vmpl", 0x0ca, 1],
  ["cpl", 0x0cb, 1],
  ["efer", 0x0d0, 8],
  ["perf_ctl0", 0x0e0, 8],
  ["perf_ctr0", 0x0e8, 8],
  ["perf_ctl1", 0x0f0, 8],
  ["perf_ctr1", 0x0f8, 8],
  ["perf_ctl2", 0x100, 8],
  ["perf_ctr2", 0x108, 8],
  ["perf_ctl3", 0x110, 8],
  ["perf_ctr3", 0x118, 8],
  ["perf_ctl4", 0x120, 8],
  ["perf_ctr4", 0x128, 8],
  ["perf_ctl5", 0x130, 8],
  ["perf_ctr5", 0x138, 8],
  ["xss", 0x140, 8],
  ["cr4", 0x148, 8],
  ["cr3", 0x150, 8],
  ["cr0", 0x158, 8],
  ["dr7", 0x160, 8],
  ["dr6", 0x168, 8],
  ["rflags", 0x170, 8],
  ["rip", 0x178, 8],
  ["dr0", 0x180, 8],
  ["dr1", 0x188, 8],
  ["dr2", 0x190, 8],
  ["dr3", 0x198, 8],
  ["dr0_addr_mask", 0x1a0, 8],
  ["dr1_addr_mask", 0x1a8, 8],
  ["dr2_addr_mask", 0x1b0, 8],
  ["dr3_addr_mask", 0x1b8, 8],
  ["instr_retired_ctr", 0x1c0, 8],
  ["perf_ctr_global_sts", 0x1c8, 8],
  ["perf_ctr_global_ctl", 0x1d0, 8],
  ["rsp", 0x1d8, 8],
  ["s_cet", 0x1e0, 8],
  ["ssp", 0x1e8, 8],
  ["isst_addr", 0x1f0, 8],
  ["rax", 0x1f8, 8],
  ["star", 0x200, 8],
  ["lstar", 0x208, 8],
  ["cstar", 0x210, 8],
  ["sfmask", 0x218, 8],
  ["kernel_gs_base", 0x220, 8],
  ["sysenter_cs", 0x228, 8],
  ["sysenter_esp", 0x230, 8],
  ["sysenter_eip", 0x238, 8],
  ["cr2", 0x240, 8],
  ["g_pat", 0x268, 8],
  ["dbgctl", 0x270, 8],
  ["br_from", 0x278, 8],
  ["br_to", 0x280, 8],
  ["last_excp_from", 0x288, 8],
  ["last_excp_to", 0x290, 8],
  ["debug_extn_ctl", 0x298, 8],
  ["spec_ctrl", 0x2e0, 8],
  ["pkru", 0x2e8, 4],
  ["tsc_aux", 0x2ec, 4],
  ["guest_tsc_scale", 0x2f0, 8],
  ["guest_tsc_offset", 0x2f8, 8],
  ["reg_prot_nonce", 0x300, 8],
  ["rcx", 0x308, 8],
  ["rdx", 0x310, 8],
  ["rbx", 0x318, 8],
  ["secure_avic_control", 0x320, 8],
  ["rbp", 0x328, 8],
  ["rsi", 0x330, 8],
  ["rdi", 0x338, 8],
  ["r8", 0x340, 8],
  ["r9", 0x348, 8],
  ["r10", 0x350, 8],
  ["r11", 0x358, 8],
  ["r12", 0x360, 8],
  ["r13", 0x368, 8],
  ["r14", 0x370, 8],
  ["r15", 0x378, 8],
  ["checksum_pa", 0x388, 8],
  ["guest_exit_info_1", 0x390, 8],
  ["guest_exit_info_2", 0x398, 8],
  ["guest_exit_int_info", 0x3a0, 8],
  ["guest_nrip", 0x3a8, 8],
  ["sev_features", 0x3b0, 8],
  ["vintr_ctrl", 0x3b8, 8],
  ["guest_exit_code", 0x3c0, 8],
  ["virtual_tom", 0x3c8, 8],
  ["tlb_id", 0x3d0, 8],
  ["pcpu_id", 0x3d8, 8],
  ["event_inj", 0x3e0, 8],
  ["xcr0", 0x3e8, 8],
  ["xsave_valid_bitmap", 0x3f0, 16],
  ["x87_dp", 0x400, 8],
  ["mxcsr", 0x408, 4],
  ["x87_ftw", 0x40c, 2],
  ["x87_fsw", 0x40e, 2],
  ["x87_fcw", 0x410, 2],
  ["x87_fop", 0x412, 2],
  ["x87_ds", 0x414, 2],
  ["x87_cs", 0x416, 2],
  ["x87_rip", 0x418, 8],
  ["fpreg_x87", 0x420, 80],
  ["fpreg_xmm", 0x470, 256],
  ["fpreg_ymm", 0x570, 256],
  ["lbr_stack_from_to", 0x670, 256],
  ["lbr_select", 0x770, 8],
  ["ibs_fetch_ctl", 0x778, 8],
  ["ibs_fetch_linear_addr", 0x780, 8],
  ["ibs_op_ctl", 0x788, 8],
  ["ibs_op_rip", 0x790, 8],
  ["ibs_op_data", 0x798, 8],
  ["ibs_op_data2", 0x7a0, 8],
  ["ibs_op_data3", 0x7a8, 8],
  ["ibs_dc_linear_addr", 0x7b0, 8],
  ["ibs_br_target", 0x7b8, 8],
  ["ibs_fetch_extd_ctl", 0x7c0, 8],
  ["guest_intercept_words", 0x900, 32],
  ["guest_msr_intercepts", 0x920, 32],
  ["fpreg_ki", 0x980, 64],
  ["fpreg_zmmhi", 0x9c0, 512],
  ["fpreg_hizmm", 0xbc0, 1024]
])

/** Byte offsets of the VMSA fields by name. */
export const VMSA = offsetsOf(VMSA_FIELDS)

/** Name of a VMSA field. */
export type VmsaField = keyof typeof VMSA

/** Offsets inside one 16-byte segment register image. */
export const SEGMENT = { selector: 0, attributes: 2, limit: 4, base: 8 } as const

/** Bytes that the CPU saves on #VMEXIT and loads on VMRUN: the fields up to the end of the YMM image. */
export const VMSA_STATE_SIZE = 0x670

/** EFER.SVME, bit 12: VMRUN needs it set in the guest's EFER; an SVSM uses it as "this VMSA may be run". */
export const EFER_SVME = 0x1000

/**
 * SEV_FEATURES bits (VMSA 0x3b0); MSR SEV_STATUS shows them shifted left by two.
 * @spec APM2 15.36, appendix B
 */
export const SEV_FEATURES = {
  SNPActive: 0x1,
  vTOM: 0x2,
  ReflectVC: 0x4,
  RestrictedInjection: 0x8,
  AlternateInjection: 0x10,
  DebugVirtualization: 0x20,
  PreventHostIBS: 0x40,
  BTBIsolation: 0x80,
  VmplSSS: 0x100,
  SecureTSC: 0x200,
  VmgexitParameter: 0x400,
  PmcVirtualization: 0x800,
  IbsVirtualization: 0x1000,
  GuestInterceptCtl: 0x2000,
  VmsaRegProt: 0x4000,
  SmtProtection: 0x8000,
  SecureAVIC: 0x10000,
  IbpbOnEntry: 0x200000
} as const

/** VINTR_CTRL.BUSY is bit 63: bit 31 of the upper half. VMRUN of such a VMSA exits with VMEXIT_BUSY. */
export const VINTR_CTRL_BUSY_HI = 0x8000_0000

/** GPA at which KVM launches the boot VMSA, outside of any memory slot. */
export const INITIAL_VMSA_GPA = 0xffff_ffff_f000
