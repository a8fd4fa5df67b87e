import { CORE_CALL, PROTOCOL } from "@vmpl-lab/guest"
import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import { createPlane, createPlaneVcpu, DEFAULT_VM_CONFIG, ERRNO, kvmRun, type Vcpu } from "@vmpl-lab/hypervisor"
import type { Machine } from "@vmpl-lab/lab"
import { REASON } from "@vmpl-lab/sev-es"
import { pause } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { runGuestProgram, setUp } from "../support/guestRun.ts"
import { probeStrategy, type StrategyProbe } from "../support/strategyProbe.ts"
import { watchEntries } from "../support/watchEntries.ts"

const named = (name: string): Strategy => STRATEGIES.find((strategy) => strategyName(strategy) === name)!

/** As the S1 series answers, and what keeps to it. */
const S1: StrategyProbe = {
  missingByPage: "info1=2, info2=0",
  missingByMsr: "error 1",
  destroyed: "info1=2, info2=0",
  otherFeatures: "served",
  refusedCreation: "nobody serves the vCPU's calls",
  lessPrivileged: "at once"
}
const IN_VMM: StrategyProbe = { ...S1, refusedCreation: "its VMSA" }
const PLANES: StrategyProbe = {
  missingByPage: `info1=2, info2=${REASON.INVALID_INPUT}`,
  missingByMsr: "the VM ends: KVM_RUN fails with errno 22",
  destroyed: "the guest vCPU sleeps",
  otherFeatures: `info1=2, info2=${REASON.INVALID_INPUT}`,
  refusedCreation: "its VMSA",
  lessPrivileged: "at once"
}

/** Whether an event that waits for VMPL0 makes it run while VMPL2 does, and the answers that guests get. */
const EXPECTED: { readonly [name: string]: readonly [wakes: boolean, StrategyProbe] } = {
  "multi-vmpl-vcpu": [false, S1],
  "vcpu-per-vmpl/vmm-threads": [false, IN_VMM],
  "vcpu-per-vmpl/vmm-one-thread": [false, IN_VMM],
  "vcpu-per-vmpl/kernel": [false, S1],
  "vm-per-vmpl/vmm-threads": [true, IN_VMM],
  "vm-per-vmpl/vmm-one-thread": [true, IN_VMM],
  "vm-per-vmpl/kernel-link": [true, S1],
  "planes/user-space": [true, PLANES],
  "planes/kernel": [true, { ...PLANES, lessPrivileged: "once VMPL2 has halted" }]
}

/** Lets an NMI wait for one level of vCPU 0 while another runs. @returns the levels entered from then on */
const levelsAfterEvent = (strategy: Strategy, eventFor: number, by: "timer" | "thread"): ReadonlySet<number> => {
  let waits = false
  let begin = -1
  let entries: ReturnType<typeof watchEntries> | null = null
  runGuestProgram({
    strategy,
    // The SVSM does not expect the event: what it makes of it is of no account here.
    untilNs: 60_000_000,
    prepare: (machine) => {
      entries = watchEntries(machine)
    },
    observe: ({ vmm, kvm, host }) => {
      if (!waits || begin >= 0) return
      begin = entries!.inGuest.length
      const waiting = vmm.groups[0]!.active!.vcpu.common.vcpuOf(eventFor)!
      waiting.queueNmi()
      const thread = by === "timer" ? null : host.threads[0]!
      if (thread !== null) thread.time = Math.max(thread.time, host.now)
      waiting.vm.operations.wakeLevel(waiting, eventFor, thread)
      expect(kvm.running).toBeNull()
    },
    *boot(guest) {
      const { svsm } = yield* setUp(guest)
      yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })
      waits = true
      for (let i = 0; i < 3_000; i++) yield pause()
    }
  })
  expect(begin).toBeGreaterThanOrEqual(0)
  return new Set(entries!.inGuest.slice(begin).map(({ vmpl }) => vmpl))
}

describe.each(STRATEGIES)("$key $variant, by design", (strategy) => {
  const [wakes, probe] = EXPECTED[strategyName(strategy)]!

  it("answers what differs between strategies as its table says", () => {
    expect(probeStrategy(strategy)).toEqual(probe)
  })

  it.each(["timer", "thread"] as const)("does or does not run VMPL0 for an event from a %s that waits for it", (by) => {
    expect(levelsAfterEvent(strategy, 0, by).has(0)).toBe(wakes)
  })
})

/** A machine whose boot processor has used two levels. */
const booted = (strategy: Strategy): Machine =>
  runGuestProgram({
    strategy,
    *boot(guest) {
      yield* setUp(guest)
    }
  }).machine

/** What KVM_RUN of a descriptor answers before it runs anything. */
const answerOfKvmRun = (machine: Machine, vcpu: Vcpu): unknown => {
  const { value, done } = kvmRun(vcpu, machine.host.threads[0]!).next()
  return done === true ? value : "runs"
}

describe.each(["planes/user-space", "planes/kernel"])("planes' ioctls under %s", (name) => {
  const machine = booted(named(name))
  const vm = machine.vmm.owner
  const thread = machine.host.threads[0]!

  it("KVM_CREATE_PLANE refuses ids that are none, and those that are there", () => {
    expect(createPlane(vm, thread, 4)).toBe(ERRNO.EINVAL)
    expect(createPlane(vm, thread, 0)).toBe(ERRNO.EEXIST)
    expect(createPlane(vm, thread, 2)).toBe(ERRNO.EEXIST)
    expect(createPlane(vm, thread, 3)).toMatchObject({ id: 3 })
    expect(createPlane(vm, thread, 3)).toBe(ERRNO.EEXIST)
  })

  it("there is one plane where the irqchip is in the kernel as a whole", () => {
    const other = machine.vmm.kvm.createVm(thread, machine.vmm.memory, vm.operations, {
      ...DEFAULT_VM_CONFIG,
      irqchip: true
    })
    expect(createPlane(other, thread, 1)).toBe(ERRNO.EINVAL)
  })

  it("KVM_CREATE_VCPU of a plane needs plane 0's vCPU of that id, once", () => {
    const plane = vm.planes.get(2)!
    expect(createPlaneVcpu(plane, thread, 7)).toBe(ERRNO.EINVAL)
    expect(createPlaneVcpu(plane, thread, 0)).toBe(ERRNO.EEXIST)
  })

  it("KVM_RUN is plane 0's alone", () => {
    expect(answerOfKvmRun(machine, vm.vcpus.get(0)!.common.vcpuOf(2)!)).toBe(ERRNO.ENOTTY)
  })
})

describe("the planes that user space names", () => {
  it("must have a vCPU", () => {
    const machine = booted(named("planes/user-space"))
    const vcpu = machine.vmm.owner.vcpus.get(0)!
    vcpu.run.plane = 1
    expect(answerOfKvmRun(machine, vcpu)).toBe(ERRNO.EINVAL)
  })
})

describe("linked vCPUs of two VM objects", () => {
  it("run one at a time: a second KVM_RUN, of whichever, is refused", () => {
    const machine = booted(named("vm-per-vmpl/kernel-link"))
    const { common } = machine.vmm.owner.vcpus.get(0)!
    // The guest has halted inside KVM_RUN.
    expect(common.inRun).toBe(true)
    for (const vmpl of [0, 2]) expect(answerOfKvmRun(machine, common.vcpuOf(vmpl)!)).toBe(ERRNO.EBUSY)
  })
})
