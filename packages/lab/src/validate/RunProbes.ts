import { type ProbePlan, probesBoot } from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { Uart } from "@vmpl-lab/hypervisor"
import type { Profile } from "@vmpl-lab/sim"
import { BARE_HEAP_GPA, type BareGuest, BareMachine } from "../BareMachine.ts"

const MIB = 0x10_0000
const PAGE = 0x1000
const EVENTS_PER_CHUNK = 50_000
/** Executions of each instruction: without contention each takes the same time. */
const REPEATS = 32

/** Pages of the sweeps, each twice as many as the one before. */
export const SWEEP_PAGES = [64, 128, 256, 512] as const

/** One sweep after the other, above what the guest uses for itself. */
const sweeps = SWEEP_PAGES.map((pages, i) => {
  const before = SWEEP_PAGES.slice(0, i).reduce((sum, n) => sum + n, 0)
  return { gpa: BARE_HEAP_GPA + 8 * MIB + before * PAGE, pages }
})

/** Mean virtual ns of one execution, by the probe's name: `explicit cpuid-1`, `#VC hypercall`, `RMPADJUST 64`. */
export type ProbeTimes = ReadonlyMap<string, number>

/** Runs the probes on an SNP guest of one vCPU without an SVSM, with the PIT in the kernel and a UART in user space. */
export const runProbes = (profile: Profile, seed: number): ProbeTimes => {
  const times = new Map<string, number>()
  const begun = new Map<string, number>()
  const guest: BareGuest = {
    kind: "snp",
    vmConfig: { pit: true },
    vcpus: 1,
    boot: (machine) => probesBoot(planOf(machine)),
    ap: (machine) => probesBoot(planOf(machine)),
    prepare: ({ platform }) => platform.vmm.devices.addPort(new Uart())
  }
  const planOf = ({ cpuidGpa, platform }: BareMachine): ProbePlan => ({
    vcpus: 1,
    heapGpa: BARE_HEAP_GPA,
    snp: true,
    cpuidGpa,
    repeats: REPEATS,
    sweeps,
    mark: (probe, executions) => {
      const now = platform.vmm.groups[0]!.active!.thread.time
      const begin = begun.get(probe)
      if (begin === undefined) begun.set(probe, now)
      else times.set(probe, (now - begin) / executions)
    }
  })
  // Whoever switches VMPLs makes no difference to a guest that has one.
  const { operations } = STRATEGIES[0]!
  const machine = new BareMachine({ guest, operations, vcpus: 1, profile, seed })
  while (machine.stepMany(EVENTS_PER_CHUNK));
  const failure = machine.failure()
  if (failure !== null) throw new Error(`probes: ${failure}`)
  return times
}
