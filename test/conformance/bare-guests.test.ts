// @ghcb 0x80000004, 0x80000005, 0x80000013, 0x8000fffe, msr 0x000, msr 0x002, msr 0x003, msr 0x004, msr 0x006, msr 0x010
// @ghcb msr 0x012, msr 0x014, msr 0x016, msr 0x080, msr 0x100, msr 0xf00
/** Guests without an SVSM, from launch to end: each way to start processors, every event once, and how guests end. */
import { bareSetUp, msrCall, requestTermination, terminate } from "@vmpl-lab/guest"
import {
  checkVmsa,
  EXIT_REASON,
  GHCB_EVENTS,
  initialVmsa,
  launchPlan,
  measureSevEs,
  measureSnp,
  parseFirmware,
  RESET_EIP,
  syntheticFirmware,
  VCPU_SIGNATURE
} from "@vmpl-lab/hypervisor"
import { BARE_GUESTS, BARE_HEAP_GPA, type BareGuest, type BareMachine } from "@vmpl-lab/lab"
import { EXIT, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { hlt, type Program, pause, writeCr, wrmsr } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { events } from "../../scripts/ghcb-table.mjs"
import { runBare } from "../support/bareRun.ts"

const BOOTS = ["init-sipi", "ap-jump-table", "ap-creation"] as const

describe.each(BOOTS)("16 vCPUs by %s", (name) => {
  it("all come up, and to their end", () => {
    const { machine, failure } = runBare(BARE_GUESTS[name](), 16)
    expect(failure).toBeNull()
    expect(machine.finished.length).toBe(16)
    expect(machine.launchDigest).toMatch(name === "ap-creation" ? /^[0-9a-f]{96}$/ : /^[0-9a-f]{64}$/)
  })

  it("do so by what the name says", () => {
    const { trace } = runBare(BARE_GUESTS[name](), 16)
    const count = (text: string): number => trace.filter((line) => line.text.includes(text)).length
    const enters = trace.filter(({ point }) => point === "kvm_vmgexit_enter")
    const asked = (code: string): number => enters.filter(({ text }) => text.includes(`exit_reason ${code},`)).length
    expect(asked("80000004")).toBe(name === "ap-jump-table" ? 15 : 0)
    expect(asked("80000005")).toBe(name === "ap-jump-table" ? 2 : 0)
    expect(asked("80000013")).toBe(name === "ap-creation" ? 15 : 0)
    expect(count("(SIPI|physical|assert|edge|all-but-self)")).toBe(
      { "init-sipi": 1, "ap-jump-table": 2, "ap-creation": 0 }[name]
    )
  })

  it("the same with the same seed, line by line", () => {
    const lines = (): ReadonlyArray<string> =>
      runBare(BARE_GUESTS[name](), 3).trace.map(({ thread, ns, text }) => `${thread} ${ns} ${text}`)
    expect(lines()).toEqual(lines())
  })
})

describe("the launch of a guest without an SVSM", () => {
  const signature = VCPU_SIGNATURE["EPYC-v4"]!
  const image = parseFirmware(syntheticFirmware(), "built-in firmware")
  const vcpus = 3

  it("has the digest that its owner computes", () => {
    const plan = { image, vmmType: "QEMU", vcpus, signature } as const
    const snp = measureSnp(launchPlan({ ...plan, sevFeatures: 1 }))
    const digest = (name: (typeof BOOTS)[number]): string => runBare(BARE_GUESTS[name](), vcpus).machine.launchDigest
    expect(digest("ap-creation")).toBe(Buffer.from(snp).toString("hex"))
    expect(digest("init-sipi")).toBe(Buffer.from(measureSevEs(plan)).toString("hex"))
  })

  it("looks at a VMSA before it is handed over", () => {
    const bytes = (field: number, value: number): Uint8Array => {
      const page = initialVmsa({ vmmType: "QEMU", eip: RESET_EIP, signature, sevFeatures: 0, bsp: true })
      new DataView(page.buffer).setUint32(field, value, true)
      return page
    }
    expect(checkVmsa(bytes(VMSA.rax, 1))).toBeNull()
    expect(checkVmsa(bytes(VMSA.dr7, 0x401))).toContain("DR7")
    expect(checkVmsa(bytes(VMSA.sev_features, 1))).toContain("SEV_FEATURES")
  })
})

describe("every event", () => {
  const { machine, failure } = runBare(BARE_GUESTS.events(), 2)

  it("is answered as it should be", () => {
    expect(failure).toBeNull()
    expect(machine.checks.filter(({ ok }) => !ok)).toEqual([])
  })

  it("was tried, but for those that end the guest and those that it has no sender for", () => {
    const tried = new Set(machine.checks.map(({ event }) => event))
    const untried = events()
      .filter(({ event }) => !tried.has(event))
      .map(({ event }) => event)
    expect(untried).toEqual([
      "0x80000016",
      "0x80000019",
      "0x80000020",
      "0x80000021",
      "0x8000fffe",
      "0x8000ffff",
      "msr 0x003",
      "msr 0x100",
      "msr 0xf00"
    ])
  })

  it("leaves counts of exits by name", () => {
    const vcpu = machine.platform.vmm.owner.vcpus.get(0)!
    expect(vcpu.exitCounts()[0]![0]).toBe("VMGEXIT")
    expect(vcpu.exitCounts().map(([name]) => name)).toEqual(expect.arrayContaining(["NPF", "HLT"]))
    expect(vcpu.exits.get(EXIT.VMGEXIT)!).toBeGreaterThan(GHCB_EVENTS.size)
    expect(vcpu.exits.get(EXIT.HLT)!).toBeGreaterThan(1)
  })
})

describe("a host that speaks version 1 alone", () => {
  it("is enough for an SEV-ES guest, which then asks for no features", () => {
    const guest = { ...BARE_GUESTS["ap-jump-table"](), vmConfig: { ghcbVersionMax: 1 } }
    const { failure, trace } = runBare(guest, 3)
    expect(failure).toBeNull()
    expect(trace.some(({ text }) => text.includes("ghcb_gpa 0001000133000001"))).toBe(true)
    expect(trace.some(({ text }) => text.includes("exit_reason 8000fffd"))).toBe(false)
  })
})

/** A guest whose boot processor runs a program after its set-up. */
const guestOf = (body: (machine: BareMachine) => Program, guest: Partial<BareGuest> = {}): BareGuest => ({
  kind: "snp",
  boot: body,
  ap: function* () {
    for (;;) yield hlt()
  },
  ...guest
})

const planOf = (machine: BareMachine, snp: boolean) => ({ vcpus: machine.vcpus, heapGpa: BARE_HEAP_GPA, snp })

describe("a guest ends", () => {
  it("by a termination request over the MSR, with its reason", () => {
    const outcome = runBare(
      guestOf(() => terminate({ set: 1, reason: 4 })),
      1
    )
    expect(outcome.failure).toContain("reason set 1, reason 4")
    expect(outcome.failure).toContain(EXIT_REASON.SYSTEM_EVENT_SEV_TERM)
  })

  it("by a termination request over the page", () => {
    const outcome = runBare(
      guestOf(function* (machine) {
        const { ghcb } = yield* bareSetUp(planOf(machine, true))
        yield* requestTermination(ghcb, { set: 1, reason: 7 })
      }),
      1
    )
    expect(outcome.failure).toContain("reason set 1, reason 7")
  })

  it.each([0x003, 0xf00, 0xf03, 0xfff])("by an MSR request that KVM does not know: 0x%s", (code) => {
    const outcome = runBare(
      guestOf(function* () {
        yield* msrCall(code, 0)
      }),
      1
    )
    expect(outcome.failure).toContain(`unknown GHCB MSR request 0x${code.toString(16)}`)
  })

  it("by an SNP request without SNP", () => {
    for (const code of [0x010, 0x012, 0x014]) {
      const outcome = runBare(
        guestOf(
          function* () {
            yield* msrCall(code, 0)
          },
          { kind: "sev-es" }
        ),
        1
      )
      expect(outcome.failure).toContain(`makes SNP request 0x${code.toString(16)}`)
    }
  })
})

describe("an SEV-ES guest's state", () => {
  const spinning = guestOf(
    function* () {
      for (let i = 0; i < 200; i++) yield pause(20)
    },
    { kind: "sev-es" }
  )

  it("cannot be entered once the host has changed it: SHUTDOWN", () => {
    let tampered = false
    const outcome = runBare(spinning, 1, {
      prepare: ({ platform }) => {
        const { kvm } = platform
        const resume = kvm.lastVmcb.preSevRun.bind(kvm.lastVmcb)
        kvm.lastVmcb.preSevRun = (core, asid, vmcb, last) => {
          const { vmsaPfn } = platform.vmm.owner.vcpus.get(0)!.current
          if (last >= 0 && !tampered) {
            tampered = true
            kvm.hardware.host.write8(vmsaPfn * PAGE_SIZE + VMSA.rax, 0x5a)
          }
          return resume(core, asid, vmcb, last)
        }
      }
    })
    expect(tampered).toBe(true)
    expect(outcome.failure).toContain(EXIT_REASON.SHUTDOWN)
  })

  it("is entered again and again while nobody does", () => {
    expect(runBare(spinning, 1).failure).toBeNull()
  })

  it("needs local APICs in the kernel", () => {
    expect(() => runBare({ ...spinning, vmConfig: { irqchip: false } }, 1)).toThrow("KVM_SEV_INIT2 answers -22")
  })
})

describe("write traps", () => {
  it("tell KVM of CR0, CR4, CR8 and EFER, and print as the kernel does", () => {
    const outcome = runBare(
      guestOf(function* () {
        yield writeCr(0, 0x31)
        yield writeCr(4, 0x660)
        yield writeCr(8, 5)
        yield wrmsr(0xc000_0080, 0xd01)
      }),
      1
    )
    expect(outcome.failure).toBeNull()
    const { current, lapic } = outcome.machine.platform.vmm.owner.vcpus.get(0)!
    expect([current.cr0, current.cr4, current.cr8, current.efer]).toEqual([0x31, 0x660, 5, 0xd01])
    expect(lapic!.getTpr()).toBe(0x50)
    expect(outcome.trace.filter(({ point }) => point === "kvm_cr").map(({ text }) => text)).toEqual([
      "cr_write 0 = 0x31",
      "cr_write 4 = 0x660",
      "cr_write 8 = 0x5"
    ])
  })
})
