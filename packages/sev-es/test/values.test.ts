// @section 4.2
import { describe, expect, it } from "vitest"
import {
  AP_CREATION,
  apCreationInfo1Lo,
  CLEAN,
  EFER_SVME,
  EXIT,
  exitName,
  GHCB_MSR,
  GHCB_VERSION,
  HV_FEATURE,
  INITIAL_VMSA_GPA,
  INT_CTL,
  isAutomaticExit,
  MSR_GHCB,
  NAE,
  NESTED_CTL,
  NPF_INFO1,
  NPF_INFO1_HI,
  PAGE_SIZE,
  PSC_OP,
  REASON,
  REPLY,
  SEGMENT,
  SEV_FEATURES,
  TERMINATE,
  TLB_CONTROL,
  VINTR_CTRL_BUSY_HI
} from "../src/index.ts"

/** A bit by its number, in the manual's way of speaking. */
const bit = (number: number): number => 2 ** number

describe("published values", () => {
  it("exit codes", () => {
    // As OpenVMM and Linux number them.
    const numbered =
      `READ_CR0 00 READ_CR3 03 READ_CR4 04 READ_CR8 08 WRITE_CR0 10 WRITE_CR3 13 WRITE_CR4 14 WRITE_CR8 18
      READ_DR7 27 WRITE_DR7 37 EXCEPTION 40 GP 4d MC 52 VC 5d INTR 60 NMI 61 SMI 62 INIT 63 VINTR 64 CR0_SEL_WRITE 65
      RDTSC 6e RDPMC 6f CPUID 72 RSM 73 IRET 74 SWINT 75 INVD 76 PAUSE 77 HLT 78 INVLPG 79 INVLPGA 7a IOIO 7b MSR 7c
      TASK_SWITCH 7d SHUTDOWN 7f VMRUN 80 VMMCALL 81 VMLOAD 82 VMSAVE 83 STGI 84 CLGI 85 SKINIT 86 RDTSCP 87 ICEBP 88
      WBINVD 89 MONITOR 8a MWAIT 8b MWAIT_COND 8c XSETBV 8d RDPRU 8e EFER_WRITE_TRAP 8f CR0_WRITE_TRAP 90
      CR4_WRITE_TRAP 94 CR8_WRITE_TRAP 98 INVLPGB a0 INVLPGB_ILLEGAL a1 INVPCID a2 BUSLOCK a5 IDLE_HLT a6 NPF 400
      AVIC_INCOMPLETE_IPI 401 AVIC_UNACCELERATED_ACCESS 402 VMGEXIT 403 PAGE_NOT_VALIDATED 404 NOT_RESTARTABLE 406
      INVALID -1 BUSY -2 IDLE_REQUIRED -3 INVALID_PMC -4`.split(/\s+/)
    expect(Object.entries(EXIT).flatMap(([name, code]) => [name, code.toString(16).padStart(2, "0")])).toEqual(numbered)
    expect([0x403, -2, 0x7b, 0x41, 0x92, 0x25, 0x33, 0xfff].map(exitName)).toEqual([
      "VMGEXIT",
      "BUSY",
      "IOIO",
      "EXCEPTION_1",
      "CR2_WRITE_TRAP",
      "READ_DR5",
      "WRITE_DR3",
      "0xfff"
    ])
  })

  it("automatic exits are those of APM2 table 15-35", () => {
    const codes = [...Array.from({ length: 0xa7 }, (_, i) => i), 0x400, 0x401, 0x402, 0x403, 0x404, -1, -2, -3, -4]
    const traps = Array.from({ length: 16 }, (_, i) => 0x90 + i)
    const automatic = [0x52, 0x60, 0x61, 0x62, 0x63, 0x64, 0x77, 0x78, 0x7f, 0x8f, ...traps, 0xa5, 0xa6]
    expect(codes.filter(isAutomaticExit)).toEqual([...automatic, 0x400, 0x401, 0x402, 0x403, -1, -2, -3, -4])
  })

  it("bits of a nested page fault's EXITINFO1", () => {
    const { P, W, U, RSVD, ID, SS, RMP } = NPF_INFO1
    expect([P, W, U, RSVD, ID, SS, RMP]).toEqual([0, 1, 2, 3, 4, 6, 31].map(bit))
    const { FINAL, PAGE_TABLE, ENC, SIZEM, VMPL, SSS } = NPF_INFO1_HI
    expect([FINAL, PAGE_TABLE, ENC, SIZEM, VMPL, SSS]).toEqual([32, 33, 34, 35, 36, 37].map((n) => bit(n - 32)))
  })

  it("SEV_FEATURES bits", () => {
    expect(SEV_FEATURES).toEqual({
      SNPActive: bit(0),
      vTOM: bit(1),
      ReflectVC: bit(2),
      RestrictedInjection: bit(3),
      AlternateInjection: bit(4),
      DebugVirtualization: bit(5),
      PreventHostIBS: bit(6),
      BTBIsolation: bit(7),
      VmplSSS: bit(8),
      SecureTSC: bit(9),
      VmgexitParameter: bit(10),
      PmcVirtualization: bit(11),
      IbsVirtualization: bit(12),
      GuestInterceptCtl: bit(13),
      VmsaRegProt: bit(14),
      SmtProtection: bit(15),
      SecureAVIC: bit(16),
      IbpbOnEntry: bit(21)
    })
    expect(VINTR_CTRL_BUSY_HI).toBe(bit(63 - 32))
    expect(EFER_SVME).toBe(bit(12))
  })

  it("VMCB controls and clean bits", () => {
    expect(NESTED_CTL).toEqual({
      NP_ENABLE: bit(0),
      SEV_ENABLE: bit(1),
      SEV_ES_ENABLE: bit(2),
      SSS_CHECK_ENABLE: bit(4)
    })
    const { V_TPR_MASK, V_INTR_PRIO_SHIFT, ...flags } = INT_CTL
    expect([V_TPR_MASK, V_INTR_PRIO_SHIFT]).toEqual([0x0f, 16])
    expect(Object.values(flags)).toEqual([8, 9, 11, 12, 20, 24, 25, 26, 30, 31].map(bit))
    expect(TLB_CONTROL).toEqual({ DO_NOTHING: 0, FLUSH_ALL_ASID: 1, FLUSH_ASID: 3, FLUSH_ASID_LOCAL: 7 })
    const { INTERCEPTS, PERM_MAP, ASID, INTR, NPT, CR, DR, DT, SEG, CR2, LBR, AVIC, SW } = CLEAN
    const bits = [INTERCEPTS, PERM_MAP, ASID, INTR, NPT, CR, DR, DT, SEG, CR2, LBR, AVIC, SW].map((mask) => mask >>> 0)
    expect(bits).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 31].map(bit))
  })

  it("pages, segments and where KVM puts the boot VMSA", () => {
    expect(PAGE_SIZE).toBe(4096)
    expect(SEGMENT).toEqual({ selector: 0, attributes: 2, limit: 4, base: 8 })
    expect(INITIAL_VMSA_GPA).toBe(0xffff_ffff_f000)
  })

  it("GHCB events, replies, features", () => {
    const low = [1, 2, 3, 4, 5, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x1a, 0x1b, 0x1c, 0x1d]
    expect(Object.values(NAE)).toEqual([...low, 0xfffd, 0xfffe, 0xffff].map((code) => 0x8000_0000 + code))
    expect([NAE.SNP_AP_CREATION, NAE.SNP_RUN_VMPL, NAE.APIC_ID_LIST]).toEqual([0x8000_0013, 0x8000_0018, 0x8000_0017])
    expect(REPLY).toEqual({ NO_ACTION: 0, INJECT_EXCEPTION: 1, MALFORMED_INPUT: 2 })
    expect(REASON).toEqual({
      GHCB_NOT_REGISTERED: 1,
      INVALID_USAGE: 2,
      INVALID_SCRATCH_AREA: 3,
      MISSING_INPUT: 4,
      INVALID_INPUT: 5,
      INVALID_EVENT: 6
    })
    expect(Object.values(HV_FEATURE)).toEqual([0, 1, 2, 3, 4, 5, 6, 9].map(bit))
    expect(HV_FEATURE.MULTI_VMPL).toBe(bit(5))
    expect(GHCB_VERSION).toEqual({ MIN: 1, MAX: 2 })
  })

  it("AP creation: request in [15:0], VMPL in [19:16]", () => {
    expect(AP_CREATION).toEqual({ CREATE_ON_INIT: 0, CREATE: 1, DESTROY: 2 })
    expect(apCreationInfo1Lo(AP_CREATION.CREATE, 2)).toBe(0x2_0001)
    expect(apCreationInfo1Lo(AP_CREATION.CREATE_ON_INIT, 3)).toBe(0x3_0000)
    expect(apCreationInfo1Lo(0x1_0002, 0x11)).toBe(0x1_0002)
  })

  it("MSR protocol codes, page states and termination reasons", () => {
    expect(MSR_GHCB).toBe(0xc001_0130)
    expect(Object.values(GHCB_MSR)).toEqual([
      0x001, 0x002, 0x004, 0x005, 0x006, 0x007, 0x010, 0x011, 0x012, 0x013, 0x014, 0x015, 0x016, 0x017, 0x080, 0x081,
      0x100
    ])
    expect(PSC_OP).toEqual({ PRIVATE: 1, SHARED: 2, PSMASH: 3, UNSMASH: 4 })
    expect(Object.values(TERMINATE).map(({ set, reason }) => `${set}:${reason}`)).toEqual([
      "0:0",
      "0:1",
      "0:2",
      "1:0",
      "1:1",
      "1:2",
      "1:3",
      "1:4",
      "1:5",
      "1:6",
      "1:7",
      "1:8",
      "1:9",
      "1:10",
      "1:11"
    ])
  })
})
