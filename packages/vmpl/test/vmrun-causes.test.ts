// @section 3.6, 4.1
import {
  EVENT_TYPE,
  EXIT,
  encodeEventInjection,
  INT_CTL,
  NESTED_CTL,
  PAGE_SIZE,
  SEV_FEATURES,
  VECTOR_HV,
  VMCB,
  VMSA
} from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { hlt, VMRUN_CAUSES, VMRUN_GP } from "../src/index.ts"
import { type MachineOptions, PFN, script, TestMachine, VMCB_PA } from "./machine.ts"

const { SNPActive, RestrictedInjection, AlternateInjection, VmplSSS, SecureAVIC, PreventHostIBS, DebugVirtualization } =
  SEV_FEATURES
const HOST = { snpEnabled: true, vmHsavePa: PFN.shared * PAGE_SIZE, ibsEnabled: false }
const event = (vector: number, type: number, errorCodeValid = false, valid = true) =>
  encodeEventInjection({ vector, type, errorCodeValid, valid })
const HV = event(VECTOR_HV, EVENT_TYPE.EXCEPTION)

interface Setting {
  readonly features?: number
  readonly nestedCtl?: number
  readonly intCtl?: number
  readonly eventInjection?: number
  readonly allowed?: readonly [lo: number, hi: number]
  readonly efer?: number
  readonly host?: MachineOptions["hostMsrs"]
}

const ALL = NESTED_CTL.NP_ENABLE | NESTED_CTL.SEV_ENABLE | NESTED_CTL.SEV_ES_ENABLE
const AVIC_PFN = PFN.shared

const outcome = (setting: Setting) => {
  const machine = new TestMachine(setting.host === undefined ? {} : { hostMsrs: setting.host })
  machine.install(script([hlt()]))
  const write = (field: keyof typeof VMCB, lo: number, hi = 0) => machine.host.write64(VMCB_PA + VMCB[field], lo, hi)
  write("nested_ctl", setting.nestedCtl ?? ALL)
  machine.host.write32(VMCB_PA + VMCB.int_ctl, setting.intCtl ?? 0)
  write("avic_backing_page", AVIC_PFN * PAGE_SIZE)
  machine.host.write32(VMCB_PA + VMCB.event_inj, setting.eventInjection ?? 0)
  write("allowed_sev_features", ...(setting.allowed ?? [0, 0]))
  const vmsa = machine.vmsa()
  vmsa.setUint32(VMSA.sev_features, setting.features ?? SNPActive, true)
  if (setting.efer !== undefined) vmsa.setUint32(VMSA.efer, setting.efer, true)
  return { machine, result: machine.vmrun() }
}

/** Each setting has the named cause and no other. */
const CAUSES: ReadonlyArray<readonly [cause: string, setting: Setting]> = [
  ["SNPActive while SNP is not enabled", { host: { ...HOST, snpEnabled: false } }],
  ["SNPActive without SEV and SEV-ES", { nestedCtl: ALL & ~NESTED_CTL.SEV_ENABLE }],
  ["SNPActive without SEV and SEV-ES", { nestedCtl: ALL & ~NESTED_CTL.SEV_ES_ENABLE }],
  ["Restricted and Alternate Injection", { features: SNPActive | RestrictedInjection | AlternateInjection }],
  [
    "VmplSSS and the VMCB's shadow-stack check",
    { features: SNPActive | VmplSSS, nestedCtl: ALL | NESTED_CTL.SSS_CHECK_ENABLE }
  ],
  ...[RestrictedInjection, AlternateInjection, SecureAVIC].map(
    (feature) =>
      [
        "Restricted or Alternate Injection or Secure AVIC with AVIC",
        { features: SNPActive | feature, intCtl: INT_CTL.AVIC_ENABLE }
      ] as const
  ),
  ...[RestrictedInjection, AlternateInjection].map(
    (feature) =>
      ["Secure AVIC with Restricted or Alternate Injection", { features: SNPActive | SecureAVIC | feature }] as const
  ),
  ...[
    event(0x20, EVENT_TYPE.INTR),
    event(2, EVENT_TYPE.NMI),
    event(VECTOR_HV, EVENT_TYPE.INTR),
    event(29, EVENT_TYPE.EXCEPTION),
    event(VECTOR_HV, EVENT_TYPE.EXCEPTION, true)
  ].map(
    (eventInjection) =>
      [
        "an event other than #HV under Restricted Injection",
        { features: SNPActive | RestrictedInjection, eventInjection }
      ] as const
  ),
  ...[event(0x80, EVENT_TYPE.SOFT_INT), event(3, EVENT_TYPE.EXCEPTION), event(4, EVENT_TYPE.EXCEPTION)].map(
    (eventInjection) => ["injection of a software interrupt, #BP or #OF", { eventInjection }] as const
  ),
  [
    "PreventHostIBS while IBS is enabled",
    { features: SNPActive | PreventHostIBS, host: { ...HOST, ibsEnabled: true } }
  ],
  [
    "SEV_FEATURES not within ALLOWED_SEV_FEATURES",
    { features: SNPActive | DebugVirtualization, allowed: [SNPActive, 0x8000_0000] }
  ],
  ["SEV_FEATURES not within ALLOWED_SEV_FEATURES", { allowed: [0, 0x8000_0000] }],
  ["EFER.SVME is clear", { efer: 0x500 }]
]

describe("VMEXIT_INVALID", () => {
  it.each(CAUSES)("%s: %o", (_, setting) => {
    const { machine, result } = outcome(setting)
    expect(result).toBe(EXIT.INVALID)
    expect([PFN.vmsa, PFN.vmcb].map((pfn) => machine.rmp.isInUse(pfn))).toEqual([false, false])
    expect(machine.vmcb("exit_code")).toEqual([0xffff_ffff, 0xffff_ffff])
  })

  it("has a case for every cause", () => {
    expect([...new Set(CAUSES.map(([cause]) => cause))].sort()).toEqual(VMRUN_CAUSES.map(({ name }) => name).sort())
  })

  const ENTERS: ReadonlyArray<Setting> = [
    {},
    { host: HOST },
    { features: SNPActive | RestrictedInjection, eventInjection: HV },
    { features: SNPActive | RestrictedInjection, eventInjection: event(0x20, EVENT_TYPE.INTR, false, false) },
    { features: SNPActive | AlternateInjection },
    { features: SNPActive | VmplSSS },
    { nestedCtl: ALL | NESTED_CTL.SSS_CHECK_ENABLE },
    { intCtl: INT_CTL.AVIC_ENABLE },
    { eventInjection: event(0x80, EVENT_TYPE.INTR) },
    { eventInjection: event(14, EVENT_TYPE.EXCEPTION, true) },
    { features: SNPActive | PreventHostIBS, host: HOST },
    { host: { ...HOST, ibsEnabled: true } },
    { features: SNPActive | DebugVirtualization, allowed: [SNPActive | DebugVirtualization, 0x8000_0000] },
    { features: SNPActive | DebugVirtualization, allowed: [SNPActive, 0] }
  ]
  it.each(ENTERS)("does not keep out %o", (setting) => {
    expect(outcome(setting).result).toBe("entered")
  })

  it("is what the causes say, for any combination", () => {
    const bit = (name: number) => fc.constantFrom(0, 0, name)
    const setting = fc.record({
      features: fc
        .tuple(bit(RestrictedInjection), bit(AlternateInjection), bit(VmplSSS), bit(SecureAVIC), bit(PreventHostIBS))
        .map((bits) => bits.reduce((all, one) => all | one, SNPActive)),
      nestedCtl: fc.constantFrom(ALL, ALL, ALL | NESTED_CTL.SSS_CHECK_ENABLE),
      intCtl: fc.constantFrom(0, 0, INT_CTL.AVIC_ENABLE),
      eventInjection: fc.constantFrom(0, 0, HV, event(3, EVENT_TYPE.EXCEPTION), event(0x30, EVENT_TYPE.INTR)),
      allowed: fc.constantFrom([0, 0] as const, [0x1f_ffff, 0x8000_0000] as const, [SNPActive, 0x8000_0000] as const),
      host: fc.constantFrom(HOST, HOST, { ...HOST, ibsEnabled: true }, { ...HOST, snpEnabled: false })
    })
    fc.assert(
      fc.property(setting, (s) => {
        const state = {
          snpEnabled: s.host.snpEnabled,
          sev: true,
          sevEs: true,
          avic: s.intCtl !== 0,
          shadowStackCheck: s.nestedCtl !== ALL,
          eventInjection: s.eventInjection,
          allowedFeatures: s.allowed[1] === 0 ? null : s.allowed[0],
          ibsEnabled: s.host.ibsEnabled,
          features: s.features,
          efer: 0x1000
        }
        const refused = VMRUN_CAUSES.some(({ refuses }) => refuses(state))
        expect(outcome(s).result).toBe(refused ? EXIT.INVALID : "entered")
      }),
      { seed: 20261121, numRuns: 300 }
    )
  })
})

describe("pages of VMRUN", () => {
  it("the host's save area must be set and the host's: #GP", () => {
    expect(outcome({ host: { ...HOST, vmHsavePa: 0 } }).result).toBe(VMRUN_GP)
    expect(outcome({ host: { ...HOST, vmHsavePa: PFN.data * PAGE_SIZE } }).result).toBe(VMRUN_GP)
  })

  it("an AVIC backing page must be hypervisor-owned, and is in use until #VMEXIT", () => {
    const machine = new TestMachine()
    machine.install(script([hlt()]))
    machine.host.write32(VMCB_PA + VMCB.int_ctl, INT_CTL.AVIC_ENABLE)
    machine.host.write64(VMCB_PA + VMCB.avic_backing_page, PFN.data * PAGE_SIZE, 0)
    expect(machine.vmrun()).toBe(EXIT.INVALID)
    machine.host.write64(VMCB_PA + VMCB.avic_backing_page, AVIC_PFN * PAGE_SIZE, 0)
    expect(machine.vmrun()).toBe("entered")
    expect(machine.rmp.isInUse(AVIC_PFN)).toBe(true)
    expect(machine.rmp.rmpupdate(AVIC_PFN, true, 0, false, 1, 1)).toBe(3)
  })

  it("a VMSA without SNPActive must be hypervisor-owned", () => {
    const machine = new TestMachine()
    machine.install(script([hlt()]), 0x105ff0)
    machine.vmsa().setUint32(VMSA.sev_features, 0, true)
    expect(machine.vmrun()).toBe(EXIT.INVALID)
    // The host takes the page back; without SNP its bytes, under the guest's key, are all that counts.
    const bytes = new Uint8Array(machine.vmsa().buffer.slice(0))
    machine.rmp.rmpupdate(PFN.vmsa, false, 0, false, 0, 0)
    machine.memory.replace(PFN.vmsa, 1, bytes)
    expect(machine.vmrun()).toBe("entered")
    expect(machine.cpu.isSnp).toBe(false)
  })

  it("a VMPL that does not exist: U9", () => {
    for (const [choice, expected] of [
      ["default", EXIT.INVALID],
      ["alternative", VMRUN_GP]
    ] as const) {
      const machine = new TestMachine({ switches: { U9: choice } })
      machine.install(script([hlt()]))
      machine.vmsa().setUint8(VMSA.vmpl, 4)
      expect(machine.vmrun()).toBe(expected)
    }
  })
})
