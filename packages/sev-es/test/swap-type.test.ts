// @section 4.3
import { describe, expect, it } from "vitest"
import { SWAP_TYPE, type SwapType, swapRanges, VMSA_FIELDS } from "../src/index.ts"

const TYPES = ["A", "B", "C"] as const
const named = (type: SwapType | null): ReadonlyArray<string> =>
  VMSA_FIELDS.filter(({ field }) => SWAP_TYPE[field] === type).map(({ field }) => field)

describe("swap types", () => {
  it("has one entry for each VMSA field", () => {
    expect(Object.keys(SWAP_TYPE).sort()).toEqual(VMSA_FIELDS.map(({ field }) => field).sort())
  })

  it("B is what KVM puts into the host save area itself, or by VMSAVE", () => {
    expect(named("B")).toEqual([
      ...["fs", "gs", "ldtr", "tr"],
      ...["pl0_ssp", "pl1_ssp", "pl2_ssp", "pl3_ssp", "u_cet", "xss"],
      ...["dr0", "dr1", "dr2", "dr3", "dr0_addr_mask", "dr1_addr_mask", "dr2_addr_mask", "dr3_addr_mask"],
      ...["star", "lstar", "cstar", "sfmask", "kernel_gs_base", "sysenter_cs", "sysenter_esp", "sysenter_eip"],
      ...["pkru", "tsc_aux", "xcr0"]
    ])
  })

  it("C is the general registers that VMRUN does not swap, CR2, the x87, SSE and AVX state, and IBS", () => {
    const isExtended = (name: string) => /^(?:x87|fpreg|ibs)_|^mxcsr$/.test(name)
    expect(named("C").filter((name) => !isExtended(name))).toEqual([
      ...["cr2", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"]
    ])
    expect(VMSA_FIELDS.map(({ field }) => field).filter(isExtended)).toEqual(named("C").filter(isExtended))
  })

  it("A is what plain SVM swaps as well, with CET's supervisor state, performance counters and LBR", () => {
    expect(named("A")).toEqual([
      ...["es", "cs", "ss", "ds", "gdtr", "idtr", "cpl", "efer"],
      ...[0, 1, 2, 3, 4, 5].flatMap((n) => [`perf_ctl${n}`, `perf_ctr${n}`]),
      ...["cr4", "cr3", "cr0", "dr7", "dr6", "rflags", "rip"],
      ...["instr_retired_ctr", "perf_ctr_global_sts", "perf_ctr_global_ctl"],
      ...["rsp", "s_cet", "ssp", "isst_addr", "rax", "g_pat"],
      ...["dbgctl", "br_from", "br_to", "last_excp_from", "last_excp_to", "debug_extn_ctl", "spec_ctrl"],
      ...["lbr_stack_from_to", "lbr_select"]
    ])
  })

  it("what is control and no register is not swapped", () => {
    expect(named(null)).toEqual([
      ...["vmpl", "guest_tsc_scale", "guest_tsc_offset", "reg_prot_nonce", "secure_avic_control", "checksum_pa"],
      ...["guest_exit_info_1", "guest_exit_info_2", "guest_exit_int_info", "guest_nrip"],
      ...["sev_features", "vintr_ctrl", "guest_exit_code", "virtual_tom", "tlb_id", "pcpu_id", "event_inj"],
      ...["xsave_valid_bitmap", "guest_intercept_words", "guest_msr_intercepts"]
    ])
  })
})

describe("swapRanges", () => {
  it.each(TYPES)("covers every byte of type %s once and no other", (type) => {
    const wanted = new Uint8Array(4096)
    for (const { field, offset, size } of VMSA_FIELDS)
      if (SWAP_TYPE[field] === type) wanted.fill(1, offset, offset + size)
    const covered = new Uint8Array(4096)
    for (const [offset, length] of swapRanges(type)) for (let i = 0; i < length; i++) covered[offset + i]! += 1
    expect(covered).toEqual(wanted)
  })

  it.each(TYPES)("gives type %s in ascending order, with a gap between any two", (type) => {
    const ranges = swapRanges(type)
    for (let i = 1; i < ranges.length; i++) expect(ranges[i]![0]).toBeGreaterThan(ranges[i - 1]![0] + ranges[i - 1]![1])
  })

  it("is computed once", () => {
    for (const type of TYPES) expect(swapRanges(type)).toBe(swapRanges(type))
  })

  it("takes eight copies for what KVM has to store", () => {
    expect(swapRanges("B")).toEqual([
      [0x040, 0x20],
      [0x070, 0x10],
      [0x090, 0x38],
      [0x140, 0x08],
      [0x180, 0x40],
      [0x200, 0x40],
      [0x2e8, 0x08],
      [0x3e8, 0x08]
    ])
  })
})
