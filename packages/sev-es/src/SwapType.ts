// @section 4.3
import { VMSA_FIELDS, type VmsaField } from "./Vmsa.ts"

/** What becomes of the host's value of a register while a guest with a VMSA runs. */
export type SwapType = "A" | "B" | "C"

/**
 * The swap type of each VMSA field; null where no register of the host has a counterpart, so nothing is swapped.
 *
 * - A: VMRUN saves the host's value in the host save area, #VMEXIT loads it back. Nobody needs to care.
 * - B: #VMEXIT loads the host's value from the host save area, but VMRUN does not save it: software must have put it
 *   there. What is left there by accident is what the host gets.
 * - C: #VMEXIT saves the guest's value and leaves the register at its reset value. The host keeps its own elsewhere.
 *
 * AMD's table of swap types was not read. The assignment follows what Linux and OpenVMM do around VMRUN: B is what
 * KVM stores in the host save area, by VMSAVE or field by field; C is what KVM takes for lost; IBS as AMD's Linux
 * patches say. DR0 to DR3 and their masks are swapped with DebugSwap only.
 * @spec-silent inferred are A for CET's S_CET, SSP and ISST, SPEC_CTRL, LBR and performance counters, and C for AVX-512
 */
export const SWAP_TYPE: Readonly<Record<VmsaField, SwapType | null>> = {
  es: "A",
  cs: "A",
  ss: "A",
  ds: "A",
  fs: "B",
  gs: "B",
  gdtr: "A",
  ldtr: "B",
  idtr: "A",
  tr: "B",
  pl0_ssp: "B",
  pl1_ssp: "B",
  pl2_ssp: "B",
  pl3_ssp: "B",
  u_cet: "B",
  vmpl: null,
  cpl: "A",
  efer: "A",
  perf_ctl0: "A",
  perf_ctr0: "A",
  perf_ctl1: "A",
  perf_ctr1: "A",
  perf_ctl2: "A",
  perf_ctr2: "A",
  perf_ctl3: "A",
  perf_ctr3: "A",
  perf_ctl4: "A",
  perf_ctr4: "A",
  perf_ctl5: "A",
  perf_ctr5: "A",
  xss: "B",
  cr4: "A",
  cr3: "A",
  cr0: "A",
  dr7: "A",
  dr6: "A",
  rflags: "A",
  rip: "A",
  dr0: "B",
  dr1: "B",
  dr2: "B",
  dr3: "B",
  dr0_addr_mask: "B",
  dr1_addr_mask: "B",
  dr2_addr_mask: "B",
  dr3_addr_mask: "B",
  instr_retired_ctr: "A",
  perf_ctr_global_sts: "A",
  perf_ctr_global_ctl: "A",
  rsp: "A",
  s_cet: "A",
  ssp: "A",
  isst_addr: "A",
  rax: "A",
  star: "B",
  lstar: "B",
  cstar: "B",
  sfmask: "B",
  kernel_gs_base: "B",
  sysenter_cs: "B",
  sysenter_esp: "B",
  sysenter_eip: "B",
  cr2: "C",
  g_pat: "A",
  dbgctl: "A",
  br_from: "A",
  br_to: "A",
  last_excp_from: "A",
  last_excp_to: "A",
  debug_extn_ctl: "A",
  spec_ctrl: "A",
  pkru: "B",
  tsc_aux: "B",
  guest_tsc_scale: null,
  guest_tsc_offset: null,
  reg_prot_nonce: null,
  rcx: "C",
  rdx: "C",
  rbx: "C",
  secure_avic_control: null,
  rbp: "C",
  rsi: "C",
  rdi: "C",
  r8: "C",
  r9: "C",
  r10: "C",
  r11: "C",
  r12: "C",
  r13: "C",
  r14: "C",
  r15: "C",
  checksum_pa: null,
  guest_exit_info_1: null,
  guest_exit_info_2: null,
  guest_exit_int_info: null,
  guest_nrip: null,
  sev_features: null,
  vintr_ctrl: null,
  guest_exit_code: null,
  virtual_tom: null,
  tlb_id: null,
  pcpu_id: null,
  event_inj: null,
  xcr0: "B",
  xsave_valid_bitmap: null,
  x87_dp: "C",
  mxcsr: "C",
  x87_ftw: "C",
  x87_fsw: "C",
  x87_fcw: "C",
  x87_fop: "C",
  x87_ds: "C",
  x87_cs: "C",
  x87_rip: "C",
  fpreg_x87: "C",
  fpreg_xmm: "C",
  fpreg_ymm: "C",
  lbr_stack_from_to: "A",
  lbr_select: "A",
  ibs_fetch_ctl: "C",
  ibs_fetch_linear_addr: "C",
  ibs_op_ctl: "C",
  ibs_op_rip: "C",
  ibs_op_data: "C",
  ibs_op_data2: "C",
  ibs_op_data3: "C",
  ibs_dc_linear_addr: "C",
  ibs_br_target: "C",
  ibs_fetch_extd_ctl: "C",
  guest_intercept_words: null,
  guest_msr_intercepts: null,
  fpreg_ki: "C",
  fpreg_zmmhi: "C",
  fpreg_hizmm: "C"
}

/** First byte and length of a run of bytes in the VMSA. */
export type SwapRange = readonly [offset: number, length: number]

const rangesOf = (type: SwapType): ReadonlyArray<SwapRange> => {
  const ranges: Array<[number, number]> = []
  for (const { field, offset, size } of VMSA_FIELDS) {
    if (SWAP_TYPE[field] !== type) continue
    const last = ranges.at(-1)
    if (last !== undefined && last[0] + last[1] === offset) last[1] += size
    else ranges.push([offset, size])
  }
  return ranges
}

const RANGES: Readonly<Record<SwapType, ReadonlyArray<SwapRange>>> = {
  A: rangesOf("A"),
  B: rangesOf("B"),
  C: rangesOf("C")
}

/** Bytes of the VMSA that have a swap type, in ascending order, neighbours merged: few copies instead of many. */
export const swapRanges = (type: SwapType): ReadonlyArray<SwapRange> => RANGES[type]
