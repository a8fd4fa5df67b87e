import { GHCB, NAE, PAGE_SIZE, REASON, REPLY } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { ERRNO, HANDLED } from "../../src/index.ts"
import { HV_FEATURES } from "../../src/kvm/CpuidTable.ts"
import { handleVmgexit } from "../../src/kvm/Vmgexit.ts"
import {
  type Bench,
  benchWithGhcb,
  type Fields,
  fill,
  GHCB_GFN,
  GHCB_GPA,
  ghcbAddress,
  reply,
  SLOT,
  setGhcbMsr,
  setValid,
  validFields
} from "./support.ts"

const { RESUME_GUEST, EXIT_TO_USER } = HANDLED
const exit = (bench: Bench): number => handleVmgexit(bench.vcpu, bench.thread)

const HV: Fields = { sw_exit_code: NAE.HV_FEATURES, sw_exit_info_1: 0, sw_exit_info_2: 0 }
const RUN: Fields = { sw_exit_code: NAE.SNP_RUN_VMPL, sw_exit_info_1: 0, sw_exit_info_2: 0 }
const VMSA_GPA = 0x21_000
/** CREATE, VMPL 2, APIC ID 5. */
const AP: Fields = {
  sw_exit_code: NAE.SNP_AP_CREATION,
  sw_exit_info_1: 5 * 2 ** 32 + (2 << 16) + 1,
  sw_exit_info_2: VMSA_GPA,
  rax: 1
}
const malformed = (reason: number): ReadonlyArray<number> => [REPLY.MALFORMED_INPUT, reason]
const REPLIED = ["sw_exit_info_1", "sw_exit_info_2"]

/** All bytes of the GHCB's shared frame, as hex. */
const page = (bench: Bench): string => {
  const bytes = bench.kvm.hardware.host.readPage(ghcbAddress(bench) / PAGE_SIZE)
  return Buffer.from(bytes).toString("hex")
}

describe("before KVM touches the GHCB page", () => {
  it("a GPA of 0 is left alone: the guest goes on", () => {
    const bench = benchWithGhcb()
    bench.vcpu.current.registeredGhcbGfn = 0
    setGhcbMsr(bench, 0)
    expect(exit(bench)).toBe(RESUME_GUEST)
  })

  it.each([
    ["below the guest's memory", SLOT.gfn - 1],
    ["above it", SLOT.gfn + SLOT.pages],
    ["far beyond", 0xf_ffff_ffff_f]
  ])("a GPA %s cannot be mapped: the guest goes on, registered or not", (_, gfn) => {
    const bench = benchWithGhcb()
    fill(bench, HV)
    const before = page(bench)
    for (const registered of [gfn, GHCB_GFN]) {
      bench.vcpu.current.registeredGhcbGfn = registered
      setGhcbMsr(bench, (gfn % 2 ** 20) * PAGE_SIZE, Math.floor(gfn / 2 ** 20))
      expect(exit(bench)).toBe(RESUME_GUEST)
    }
    expect(page(bench)).toBe(before)
  })

  it.each([-1, GHCB_GFN + 1, GHCB_GFN - 1])(
    "a page other than the registered one (%i) ends KVM_RUN with EINVAL",
    (gfn) => {
      const bench = benchWithGhcb()
      bench.vcpu.current.registeredGhcbGfn = gfn
      // Everything else is wrong too: registration comes first.
      fill(bench, { ghcb_usage: 1 })
      const before = page(bench)
      expect(exit(bench)).toBe(ERRNO.EINVAL)
      expect(bench.vcpu.run.detail).toContain(GHCB_GPA.toString(16))
      expect(page(bench)).toBe(before)
    }
  )

  it("registration belongs to one level: another level's GHCB is not its own", () => {
    const bench = benchWithGhcb()
    fill(bench, HV)
    bench.vcpu.current = bench.vcpu.slot(0)!
    expect(exit(bench)).toBe(ERRNO.EINVAL)
  })
})

/** Cases that break one more rule each: the reason is that of the first rule broken. */
const ORDER: ReadonlyArray<readonly [string, (bench: Bench) => void, number]> = [
  [
    "usage 1, no field valid, unknown event",
    (bench) => fill(bench, { ghcb_usage: 1, sw_exit_code: 0x1234 }),
    REASON.INVALID_USAGE
  ],
  ["usage 0x80000000", (bench) => fill(bench, { ...HV, ghcb_usage: 0x8000_0000 }), REASON.INVALID_USAGE],
  ["nothing valid, unknown event", (bench) => fill(bench, {}), REASON.MISSING_INPUT],
  ...(["sw_exit_code", "sw_exit_info_1", "sw_exit_info_2"] as const).flatMap((field) =>
    [HV, RUN, AP, { ...HV, sw_exit_code: 0x1234 }].map(
      (fields, i) =>
        [
          `${field} not valid, event ${i}`,
          (bench: Bench) => {
            fill(bench, fields)
            setValid(bench, GHCB[field], false)
          },
          REASON.MISSING_INPUT
        ] as const
    )
  ),
  [
    "RAX not valid for AP creation",
    (bench) => {
      fill(bench, AP)
      setValid(bench, GHCB.rax, false)
    },
    REASON.MISSING_INPUT
  ],
  ["an unknown event", (bench) => fill(bench, { ...HV, sw_exit_code: 0x8000_0019 }), REASON.INVALID_EVENT],
  ["event 0", (bench) => fill(bench, { ...HV, sw_exit_code: 0 }), REASON.INVALID_EVENT],
  ...[HV, RUN, AP].map(
    (fields, i) =>
      [
        `a known event with a bit in the upper half, ${i}`,
        (bench: Bench) => fill(bench, { ...fields, sw_exit_code: fields.sw_exit_code! + 2 ** 32 }),
        REASON.INVALID_EVENT
      ] as const
  )
]

describe("malformed input", () => {
  it.each(ORDER)("%s", (_, prepare, reason) => {
    const bench = benchWithGhcb()
    prepare(bench)
    expect(exit(bench)).toBe(RESUME_GUEST)
    expect(reply(bench)).toEqual(malformed(reason))
    expect(validFields(bench)).toEqual(REPLIED)
    expect([bench.asked.apCreate, bench.asked.runVmpl]).toEqual([[], []])
  })
})

describe("an event", () => {
  it("is answered in the two information words, with only their valid bits set", () => {
    const bench = benchWithGhcb()
    fill(bench, { ...HV, rax: 7, rbx: 8, r15: 9, cpl: 3 })
    expect(exit(bench)).toBe(RESUME_GUEST)
    expect(reply(bench)).toEqual([REPLY.NO_ACTION, HV_FEATURES])
    expect(HV_FEATURES).toBe(0b10_0011)
    expect(validFields(bench)).toEqual(REPLIED)
    expect(bench.kvm.hardware.host.read64(ghcbAddress(bench) + GHCB.rax)).toBe(7)
  })

  it("hands the strategy an AP creation decoded, and nothing of it checked", () => {
    const bench = benchWithGhcb()
    fill(bench, AP)
    expect(exit(bench)).toBe(RESUME_GUEST)
    expect(bench.asked.apCreate).toEqual([
      { request: 1, vmpl: 2, apicId: 5, vmsaGpa: VMSA_GPA, sevFeatures: 1, fromVmpl: 2, fromApicId: 0 }
    ])
    expect(reply(bench)).toEqual([REPLY.NO_ACTION, 0])
    const odd = benchWithGhcb()
    fill(odd, { ...AP, sw_exit_info_1: 0x12_3456 * 2 ** 32 + 0xfff7_1234, sw_exit_info_2: 123, rax: 2 ** 40 })
    exit(odd)
    expect(odd.asked.apCreate).toMatchObject([
      { request: 0x1234, vmpl: 7, apicId: 0x12_3456, vmsaGpa: 123, sevFeatures: 2 ** 40 }
    ])
  })

  it("takes DESTROY without RAX", () => {
    const bench = benchWithGhcb()
    fill(bench, { ...AP, sw_exit_info_1: 2 })
    setValid(bench, GHCB.rax, false)
    exit(bench)
    expect(bench.asked.apCreate).toHaveLength(1)
    expect(reply(bench)).toEqual([REPLY.NO_ACTION, 0])
  })

  it("hands the strategy all 32 bits of the VMPL to run", () => {
    for (const vmpl of [0, 3, 4, 255, 256, 0xffff_ffff]) {
      const bench = benchWithGhcb()
      fill(bench, { ...RUN, sw_exit_info_1: vmpl + 7 * 2 ** 32 })
      exit(bench)
      expect(bench.asked.runVmpl).toEqual([vmpl])
      expect(reply(bench)).toEqual([REPLY.NO_ACTION, 0])
    }
  })

  it.each([
    ["run VMPL", RUN, [REPLY.MALFORMED_INPUT, 0]],
    ["AP creation", AP, [REPLY.MALFORMED_INPUT, REASON.INVALID_INPUT]]
  ] as const)("%s that the strategy refuses is malformed input, in KVM or later in user space", (_, fields, answer) => {
    const inKernel = benchWithGhcb()
    inKernel.asked.answer = ERRNO.EINVAL
    fill(inKernel, fields)
    expect(exit(inKernel)).toBe(RESUME_GUEST)
    expect(reply(inKernel)).toEqual(answer)
    expect(inKernel.vcpu.complete).toBeNull()

    const inVmm = benchWithGhcb()
    inVmm.asked.answer = EXIT_TO_USER
    fill(inVmm, fields)
    expect(exit(inVmm)).toBe(EXIT_TO_USER)
    expect(inVmm.vcpu.complete!(inVmm.vcpu, ERRNO.EINVAL)).toBe(RESUME_GUEST)
    expect(reply(inVmm)).toEqual(answer)
    expect(validFields(inVmm)).toEqual(REPLIED)

    const accepted = benchWithGhcb()
    accepted.asked.answer = EXIT_TO_USER
    fill(accepted, fields)
    exit(accepted)
    expect(accepted.vcpu.complete!(accepted.vcpu, 0)).toBe(RESUME_GUEST)
    expect(reply(accepted)).toEqual([REPLY.NO_ACTION, 0])
  })
})

describe("a GHCB page that is not shared any more", () => {
  it.each([HV, RUN, AP, { ...HV, sw_exit_code: 5 }])(
    "ends KVM_RUN with EFAULT, before the strategy is asked: %o",
    (fields) => {
      const bench = benchWithGhcb()
      fill(bench, fields)
      // The frame now belongs to the guest: the host still reads, but cannot write.
      bench.rmp.rmpupdate(ghcbAddress(bench) / PAGE_SIZE, true, 0, false, GHCB_GFN, 1)
      const before = page(bench)
      expect(exit(bench)).toBe(ERRNO.EFAULT)
      expect(bench.vcpu.run.detail).toContain("no longer hypervisor-owned")
      expect([bench.asked.apCreate, bench.asked.runVmpl]).toEqual([[], []])
      expect(page(bench)).toBe(before)
    }
  )

  it("is looked for in the backing that the page's attribute says", () => {
    const bench = benchWithGhcb()
    fill(bench, HV)
    const before = page(bench)
    bench.vm.setMemoryAttributes(bench.thread, GHCB_GFN, true)
    const pfn = bench.vm.memory.privateFrame(GHCB_GFN)
    bench.rmp.rmpupdate(pfn, true, 0, false, GHCB_GFN, 1)
    expect(exit(bench)).toBe(ERRNO.EFAULT)
    expect(page(bench)).toBe(before)
  })
})
