// @ghcb 0x80000003, 0x80000014, 0x80000015
/** How events reach a guest whose state is encrypted, from the hypervisor's queue to the guest's handler and back. */
import {
  BARE_BLOCK,
  bareSetUp,
  blockPage,
  cpuidPageOf,
  enableX2apic,
  type Ghcb,
  guestIdt,
  hvIpi,
  initSipi,
  keepingGhcbMsr,
  MSR_X2APIC_ICR,
  makeShared,
  setDoorbell
} from "@vmpl-lab/guest"
import {
  DEFAULT_CAPABILITIES,
  ERRNO,
  getRegs,
  getSregs,
  injectNmi,
  injectSmi,
  kickFromInterrupt,
  setGuestDebug,
  setRegs,
  setSregs,
  systemReset
} from "@vmpl-lab/hypervisor"
import { BARE_HEAP_GPA, type BareGuest, type BareMachine } from "@vmpl-lab/lab"
import { EXIT, HV_FEATURE, SEV_FEATURES, u64 } from "@vmpl-lab/sev-es"
import { cli, hlt, lidt, type Program, pause, rdmsr, readCr, sti, wrmsr } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { runBare } from "../support/bareRun.ts"

const EVERYTHING = Object.values(HV_FEATURE).reduce((all, bit) => all | bit, 0)
const MSR_TSC = 0x10
const X2APIC = { EOI: 0x80b, SPIV: 0x80f, LVTT: 0x832, TMICT: 0x838 } as const

const planOf = ({ vcpus, cpuidGpa }: BareMachine) => ({ vcpus, heapGpa: BARE_HEAP_GPA, snp: true, cpuidGpa })
const page = (machine: BareMachine, offset: number, apicId = 0): number => blockPage(planOf(machine), apicId, offset)

/** A guest of one program; further processors sleep. */
const guestOf = (boot: (machine: BareMachine) => Program, more: Partial<BareGuest> = {}): BareGuest => ({
  kind: "snp",
  boot,
  ap: function* () {
    for (;;) yield hlt()
  },
  vmConfig: { hvFeatures: EVERYTHING },
  ...more
})

interface Log {
  readonly vectors: Array<number>
  nmis: number
}

const newLog = (): Log => ({ vectors: [], nmis: 0 })

/** Handlers that write themselves down, with a stack of their own. */
const idtOf = (machine: BareMachine, ghcb: Ghcb, log: Log, hv?: { readonly doorbell: number }) =>
  guestIdt({
    vc: { ghcb, ...cpuidPageOf(planOf(machine)) },
    stack: page(machine, BARE_BLOCK.STACK) + 0x1000,
    onNmi: function* () {
      log.nmis++
      yield pause()
    },
    onInterrupt: function* (vector) {
      log.vectors.push(vector)
      yield wrmsr(X2APIC.EOI, 0)
    },
    ...(hv === undefined
      ? {}
      : {
          hv: {
            doorbell: hv.doorbell,
            onMachineCheck: function* () {
              yield pause()
            }
          }
        })
  })

function* withApic(machine: BareMachine, log: Log): Program<Ghcb> {
  const { ghcb } = yield* bareSetUp(planOf(machine))
  yield lidt(idtOf(machine, ghcb, log))
  yield* enableX2apic(0)
  yield wrmsr(X2APIC.SPIV, 0x1ff)
  return ghcb
}

describe("normal injection", () => {
  it("waits for RFLAGS.IF behind an interrupt window, and takes the highest priority first", () => {
    const log = newLog()
    const { failure, machine, trace } = runBare(
      guestOf(function* (self) {
        const ghcb = yield* withApic(self, log)
        yield cli()
        for (const vector of [0x41, 0x91, 0x61]) yield* hvIpi(ghcb, u64(0x4_4000 | vector))
        expect(log.vectors).toEqual([])
        yield sti()
        for (let i = 0; i < 50 && log.vectors.length < 3; i++) yield pause()
      }),
      1
    )
    expect(failure).toBeNull()
    expect(log.vectors).toEqual([0x91, 0x61, 0x41])
    const { exits } = machine.platform.vmm.owner.vcpus.get(0)!
    expect(exits.get(EXIT.VINTR)).toBeGreaterThan(0)
    const injected = trace.filter(({ point }) => point === "kvm_inj_virq").map(({ text }) => text)
    expect(injected).toEqual(["IRQ 0x91", "IRQ 0x61", "IRQ 0x41"])
  })

  it("a TPR by the APIC is CR8, and holds back what is not above it", () => {
    const log = newLog()
    const cr8: Array<number> = []
    const { failure } = runBare(
      guestOf(function* (self) {
        const ghcb = yield* withApic(self, log)
        yield wrmsr(0x808, 0x60)
        cr8.push((yield readCr(8)).lo)
        yield sti()
        for (const vector of [0x41, 0x71]) yield* hvIpi(ghcb, u64(0x4_4000 | vector))
        for (let i = 0; i < 20; i++) yield pause()
        expect(log.vectors).toEqual([0x71])
        yield wrmsr(0x808, 0)
        cr8.push((yield readCr(8)).lo)
        for (let i = 0; i < 20 && log.vectors.length < 2; i++) yield pause()
      }),
      1
    )
    expect([failure, log.vectors, cr8]).toEqual([null, [0x71, 0x41], [6, 0]])
  })

  it("an interrupt whose delivery meets a nested fault is injected again", () => {
    const log = newLog()
    const { failure, trace } = runBare(
      guestOf(function* (self) {
        const ghcb = yield* withApic(self, log)
        yield cli()
        yield* hvIpi(ghcb, u64(0x4_4041))
        self.platform.vmm.owner.npt.unmap(page(self, BARE_BLOCK.STACK) / 0x1000)
        yield sti()
        for (let i = 0; i < 20 && log.vectors.length === 0; i++) yield pause()
      }),
      1
    )
    expect([failure, log.vectors]).toEqual([null, [0x41]])
    const injected = trace.filter(({ point }) => point === "kvm_inj_virq").map(({ text }) => text)
    expect(injected).toEqual(["IRQ 0x41", "IRQ 0x41 [reinjected]"])
    const fault = trace.find(({ point, text }) => point === "kvm_exit" && text.includes("intr_info 0x80000041"))
    expect(fault?.text).toContain("reason npf")
  })

  it("a timer wakes a halted vCPU when it is time, in virtual time", () => {
    const log = newLog()
    let asked = 0
    let woken = 0
    const { failure } = runBare(
      guestOf(function* (self) {
        yield* withApic(self, log)
        yield wrmsr(0x83e, 0xb)
        yield wrmsr(X2APIC.LVTT, 0x51)
        yield cli()
        asked = self.platform.host.now
        yield wrmsr(X2APIC.TMICT, 500_000)
        yield sti()
        yield hlt()
        woken = self.platform.host.now
      }),
      1
    )
    expect([failure, log.vectors]).toEqual([null, [0x51]])
    expect(woken - asked).toBeGreaterThanOrEqual(500_000)
    // The host looks at its clock at meeting points of threads only.
    expect(woken - asked).toBeLessThan(700_000)
  })

  it("NMIs at any moment disturb nothing, in the middle of a #VC neither", () => {
    const log = newLog()
    let sent = 0
    const values: Array<number> = []
    const { failure } = runBare(
      guestOf(function* (self) {
        yield* withApic(self, log)
        for (let i = 0; i < 400; i++) {
          const { lo, hi } = yield rdmsr(MSR_TSC)
          values.push(hi * 2 ** 32 + lo)
        }
      }),
      1,
      {
        prepare: ({ platform }) => {
          const { host, vmm } = platform
          const strike = (time: number): void => {
            const vcpu = vmm.vms[0]?.vcpus.get(0)
            if (vcpu !== undefined && vcpu.exits.size > 0 && sent < 300) {
              sent++
              vcpu.queueNmi()
              kickFromInterrupt(vcpu, time, EXIT.NMI)
            }
            if (sent < 300) host.setTimer(time + 3_777, strike)
          }
          host.setTimer(50_900_000, strike)
        }
      }
    )
    expect(failure).toBeNull()
    expect(values.length).toBe(400)
    expect(values).toEqual(values.toSorted((a, b) => a - b))
    expect(log.nmis).toBeGreaterThan(100)
    expect(log.nmis).toBeLessThanOrEqual(sent)
  })
})

describe("restricted injection", () => {
  const restricted = (log: Log, body: (self: BareMachine, ghcb: Ghcb) => Program): BareGuest =>
    guestOf(
      function* (self) {
        const { ghcb } = yield* bareSetUp(planOf(self))
        const doorbell = page(self, 0x5000)
        yield* keepingGhcbMsr(makeShared(doorbell))
        expect((yield* setDoorbell(ghcb, doorbell)).ok).toBe(true)
        yield lidt(idtOf(self, ghcb, log, { doorbell }))
        yield* enableX2apic(0)
        yield wrmsr(X2APIC.SPIV, 0x1ff)
        yield* body(self, ghcb)
      },
      { sevFeatures: SEV_FEATURES.RestrictedInjection }
    )

  it("brings interrupts by the doorbell and #HV alone, whatever RFLAGS.IF is", () => {
    const log = newLog()
    const { failure, trace } = runBare(
      restricted(log, function* (_, ghcb) {
        yield cli()
        for (const vector of [0x41, 0x91]) {
          expect((yield* hvIpi(ghcb, u64(0x4_4000 | vector))).ok).toBe(true)
          for (let i = 0; i < 20 && log.vectors.at(-1) !== vector; i++) yield pause()
        }
        yield wrmsr(MSR_X2APIC_ICR, 0x4_4400)
        for (let i = 0; i < 20 && log.nmis === 0; i++) yield pause()
      }),
      1
    )
    expect([failure, log.vectors, log.nmis]).toEqual([null, [0x41, 0x91], 1])
    expect(trace.filter(({ point }) => point === "kvm_inj_virq").length).toBe(2)
  })

  it("wakes a halted vCPU, with RFLAGS.IF clear too", () => {
    const log = newLog()
    const { failure } = runBare(
      restricted(log, function* () {
        yield cli()
        yield wrmsr(0x83e, 0xb)
        yield wrmsr(X2APIC.LVTT, 0x51)
        yield wrmsr(X2APIC.TMICT, 300_000)
        for (let i = 0; i < 5 && log.vectors.length === 0; i++) yield hlt()
      }),
      1
    )
    expect([failure, log.vectors]).toEqual([null, [0x51]])
  })

  it("rings again when the guest could not hear the first time", () => {
    const log = newLog()
    const { failure, trace } = runBare(
      restricted(log, function* (self, ghcb) {
        self.platform.vmm.owner.npt.unmap(page(self, BARE_BLOCK.STACK) / 0x1000)
        yield* hvIpi(ghcb, u64(0x4_4041))
        for (let i = 0; i < 20 && log.vectors.length === 0; i++) yield pause()
      }),
      1
    )
    expect([failure, log.vectors]).toEqual([null, [0x41]])
    const again = trace.filter(({ point }) => point === "kvm_inj_exception").map(({ text }) => text)
    expect(again).toEqual(["0x1c (0x0) [reinjected]"])
  })

  it("a guest without a doorbell gets nothing, and loses nothing", () => {
    const log = newLog()
    const { failure } = runBare(
      guestOf(
        function* (self) {
          const { ghcb } = yield* bareSetUp(planOf(self))
          const doorbell = page(self, 0x5000)
          yield* keepingGhcbMsr(makeShared(doorbell))
          yield lidt(idtOf(self, ghcb, log, { doorbell }))
          yield* enableX2apic(0)
          yield wrmsr(X2APIC.SPIV, 0x1ff)
          yield* hvIpi(ghcb, u64(0x4_4041))
          expect(log.vectors).toEqual([])
          yield* setDoorbell(ghcb, doorbell)
          for (let i = 0; i < 20 && log.vectors.length === 0; i++) yield pause()
        },
        { sevFeatures: SEV_FEATURES.RestrictedInjection }
      ),
      1
    )
    expect([failure, log.vectors]).toEqual([null, [0x41]])
  })
})

describe("alternate injection", () => {
  it("leaves the host without any way in: its interrupt stays in the local APIC", () => {
    const log = newLog()
    const { failure, machine } = runBare(
      guestOf(
        function* (self) {
          const ghcb = yield* withApic(self, log)
          yield* hvIpi(ghcb, u64(0x4_4041))
          yield sti()
          for (let i = 0; i < 50; i++) yield pause()
        },
        { sevFeatures: SEV_FEATURES.AlternateInjection }
      ),
      1
    )
    expect([failure, log.vectors]).toEqual([null, []])
    expect(machine.platform.vmm.owner.vcpus.get(0)!.lapic!.highestPending()).toBe(0x41)
  })
})

describe("what user space can do with an encrypted guest", () => {
  const { machine, failure } = runBare(
    guestOf(function* () {
      yield pause()
    }),
    1
  )
  const vcpu = machine.platform.vmm.owner.vcpus.get(0)!
  const thread = machine.platform.host.spawn("user", -1)

  it("is little: no registers, no debugging, no SMM", () => {
    expect(failure).toBeNull()
    expect([getRegs, setRegs, setGuestDebug].map((ioctl) => ioctl(vcpu, thread))).toEqual([
      ERRNO.EINVAL,
      ERRNO.EINVAL,
      ERRNO.EINVAL
    ])
    expect(injectSmi(vcpu, thread)).toBe(ERRNO.ENOTTY)
    expect(injectNmi(vcpu, thread)).toBe(0)
    expect(vcpu.events.nmiPending).toBe(1)
  })

  it("of sregs it sees what the traps told, and sets the APIC base and CR8", () => {
    expect(getSregs(vcpu, thread)).toEqual({ cr0: 0x10, cr4: 0, cr8: 0, efer: 0, apicBase: 0xfee0_0900 })
    expect(setSregs(vcpu, thread, { apicBase: 0xfee0_0900, cr8: 4 })).toBe(0)
    expect(vcpu.lapic!.getTpr()).toBe(0x40)
    expect(setSregs(vcpu, thread, { apicBase: 0xfee0_0500, cr8: 0 })).toBe(ERRNO.EINVAL)
  })

  it("a reset ends the machine, and says why", () => {
    expect(systemReset(machine.platform.vmm, { rebootDisabled: false })).toBe(false)
    expect(machine.platform.vmm.failure).toContain("state is encrypted: a system reset is not possible")
  })
})

describe("capabilities", () => {
  const exitsWith = (capabilities: Partial<typeof DEFAULT_CAPABILITIES>, body: () => Program) => {
    const guest = guestOf(body, { vmConfig: { capabilities: { ...DEFAULT_CAPABILITIES, ...capabilities } } })
    const { machine, failure } = runBare(guest, 1)
    expect(failure).toBeNull()
    return machine.platform.vmm.owner.vcpus.get(0)!.exits
  }

  it("pause exit: every PAUSE beyond the filter leaves", () => {
    const spin = function* (): Program {
      for (let i = 0; i < 40; i++) yield pause(100)
    }
    expect(exitsWith({}, spin).get(EXIT.PAUSE)).toBeUndefined()
    expect(exitsWith({ pauseExit: true }, spin).get(EXIT.PAUSE)).toBe(1)
  })

  it("halt exit: without it the core itself waits for the interrupt", () => {
    const sleeper = (log: Log, haltExit: boolean): BareGuest =>
      guestOf(
        function* (self) {
          yield* withApic(self, log)
          yield wrmsr(0x83e, 0xb)
          yield wrmsr(X2APIC.LVTT, 0x51)
          yield wrmsr(X2APIC.TMICT, 300_000)
          for (let i = 0; i < 50 && log.vectors.length === 0; i++) {
            yield sti()
            yield hlt()
          }
        },
        { vmConfig: { capabilities: { ...DEFAULT_CAPABILITIES, haltExit } } }
      )
    const halts = [true, false].map((haltExit) => {
      const log = newLog()
      const { machine, failure } = runBare(sleeper(log, haltExit), 1)
      expect([failure, log.vectors]).toEqual([null, [0x51]])
      return machine.platform.vmm.owner.vcpus.get(0)!.exits.get(EXIT.HLT)
    })
    // The end of the program is one in either case.
    expect(halts).toEqual([2, 1])
  })

  it("INIT and SIPI do nothing to a processor that runs", () => {
    const { failure } = runBare(
      guestOf(function* (self) {
        yield* withApic(self, newLog())
        yield* initSipi(0, 0)
        yield pause()
      }),
      1
    )
    expect(failure).toBeNull()
  })
})
