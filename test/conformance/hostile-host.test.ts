import { BLOCK, CORE_CALL, NOT_SERVED, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import { HANDLED, type Vcpu } from "@vmpl-lab/hypervisor"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { RandomStream } from "@vmpl-lab/sim"
import { HOST_ASID } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { runGuestProgram, setUp } from "../support/guestRun.ts"

const CALLS = 40
/** A frame that is nobody's but the host's. */
const HOST_FRAME = 0x10

/** What the host does with requests to run a level, once it has begun. */
interface Meddling {
  isOn: boolean
  /** Calls that were not brought to VMPL0. */
  withheld: number
  /** Entries of VMPL0 that nobody had asked for. */
  spurious: number
}

/** A strategy whose KVM does not always run the level that was asked for: it goes on with the one that asked. */
const meddlingWith = (strategy: Strategy, meddling: Meddling, random: RandomStream): Strategy => {
  const { kernel } = strategy.operations
  const runVmpl: typeof kernel.runVmpl = (vcpu: Vcpu, thread, vmpl) => {
    if (!meddling.isOn || random.int(0, 2) > 0) return kernel.runVmpl(vcpu, thread, vmpl)
    if (vmpl === 0) meddling.withheld++
    else meddling.spurious++
    return HANDLED.RESUME_GUEST
  }
  return { ...strategy, operations: { ...strategy.operations, kernel: { ...kernel, runVmpl } } }
}

describe.each(STRATEGIES.map((strategy) => [strategyName(strategy), strategy] as const))("under %s", (_, strategy) => {
  it.each(["page", "msr"] as const)(
    "a host that withholds calls and enters VMPL0 unasked is found out (%s)",
    (ring) => {
      const meddling = { isOn: false, withheld: 0, spurious: 0 }
      const results: Array<number> = []
      const withheld: Array<boolean> = []
      const { failure, finished, machine } = runGuestProgram({
        strategy: meddlingWith(strategy, meddling, new RandomStream(1, `hostile host, ${ring}`)),
        ring,
        *boot(guest) {
          const { svsm } = yield* setUp(guest)
          meddling.isOn = true
          for (let call = 0; call < CALLS; call++) {
            const before = meddling.withheld
            results.push(yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 }))
            withheld.push(meddling.withheld > before)
          }
          meddling.isOn = false
          results.push(yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 }))
          withheld.push(false)
        }
      })
      expect([failure, finished]).toEqual([null, [0]])
      // The guest knows of each call whether VMPL0 has served it, whatever the host says.
      expect(results).toEqual(withheld.map((wasWithheld) => (wasWithheld ? NOT_SERVED : SVSM_RESULT.SUCCESS)))
      expect(meddling.withheld).toBeGreaterThan(3)
      expect(meddling.spurious).toBeGreaterThan(3)
      expect(machine.svsm.panics.size).toBe(0)
    }
  )

  it.each(["another page of the guest", "a page of the host's"])("VMPL0 touches nothing of %s", (target) => {
    const { kernel } = strategy.operations
    let swap: (() => void) | null = null
    const runVmpl: typeof kernel.runVmpl = (vcpu, thread, vmpl) => {
      if (vmpl === 0) swap?.()
      return kernel.runVmpl(vcpu, thread, vmpl)
    }
    let pageBefore = ""
    let page = (): string => ""
    let hasReturned = false
    const hostile = { ...strategy, operations: { ...strategy.operations, kernel: { ...kernel, runVmpl } } }
    const { failure, machine } = runGuestProgram({
      strategy: hostile,
      untilNs: 90_000_000,
      *boot(guest) {
        const { svsm } = yield* setUp(guest)
        const { nestedTables, memory } = guest.machine.hardware
        const frames = guest.machine.vmm.memory
        const own = frames.privateFrameIfPresent(guest.page(BLOCK.OTHER_CALLING_AREA) / PAGE_SIZE)
        const foreign = target === "another page of the guest" ? own : HOST_FRAME
        page = () => {
          const { buffer, byteOffset } = memory.read(foreign, HOST_ASID)
          return Buffer.from(buffer, byteOffset, PAGE_SIZE).toString("base64")
        }
        swap = () => {
          pageBefore = page()
          for (const npt of nestedTables.values()) npt.map(svsm.caGpa / PAGE_SIZE, foreign)
        }
        yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })
        hasReturned = true
      }
    })
    expect(failure).toContain("RMP violation")
    expect(hasReturned).toBe(false)
    expect(page()).toBe(pageBefore)
    expect(machine.svsm.panics.size).toBe(0)
  })
})
