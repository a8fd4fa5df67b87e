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
    expect(EXIT).toEqual({
      VC: 0x5d,
      INTR: 0x60,
      CPUID: 0x72,
      HLT: 0x78,
      SHUTDOWN: 0x7f,
      NPF: 0x400,
      VMGEXIT: 0x403,
      PAGE_NOT_VALIDATED: 0x404,
      INVALID: -1,
      BUSY: -2,
      IDLE_REQUIRED: -3,
      INVALID_PMC: -4
    })
    expect([exitName(0x403), exitName(-2), exitName(0x7b)]).toEqual(["VMGEXIT", "BUSY", "0x7b"])
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
    expect(INT_CTL).toEqual({ AVIC_ENABLE: bit(31) })
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
    expect(NAE).toEqual({
      SNP_AP_CREATION: 0x8000_0013,
      SNP_RUN_VMPL: 0x8000_0018,
      HV_FEATURES: 0x8000_fffd,
      TERMINATION_REQUEST: 0x8000_fffe
    })
    expect(REPLY).toEqual({ NO_ACTION: 0, INJECT_EXCEPTION: 1, MALFORMED_INPUT: 2 })
    expect(REASON).toEqual({
      GHCB_NOT_REGISTERED: 1,
      INVALID_USAGE: 2,
      INVALID_SCRATCH_AREA: 3,
      MISSING_INPUT: 4,
      INVALID_INPUT: 5,
      INVALID_EVENT: 6
    })
    expect(HV_FEATURE).toEqual({ SNP: bit(0), AP_CREATION: bit(1), MULTI_VMPL: bit(5) })
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
      0x001, 0x002, 0x004, 0x005, 0x010, 0x011, 0x012, 0x013, 0x014, 0x015, 0x016, 0x017, 0x080, 0x081, 0x100
    ])
    expect(PSC_OP).toEqual({ PRIVATE: 1, SHARED: 2 })
    expect(Object.values(TERMINATE).map(({ set, reason }) => `${set}:${reason}`)).toEqual([
      "0:0",
      "0:1",
      "0:2",
      "1:0",
      "1:1",
      "1:2",
      "1:7",
      "1:8",
      "1:9",
      "1:11"
    ])
  })
})
