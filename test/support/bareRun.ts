import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import type { TracePoint } from "@vmpl-lab/hypervisor"
import { type BareGuest, BareMachine } from "@vmpl-lab/lab"
import { profile } from "./guestRun.ts"

/** One line of the kernel's trace, without who and when. */
export interface Traced {
  readonly thread: string
  readonly ns: number
  readonly point: TracePoint
  readonly text: string
}

export interface BareOutcome {
  readonly machine: BareMachine
  readonly failure: string | null
  readonly trace: ReadonlyArray<Traced>
}

/** Boots a guest without an SVSM and runs it to its end. */
export const runBare = (
  guest: BareGuest,
  vcpus: number,
  options: { readonly seed?: number; readonly prepare?: (machine: BareMachine) => void } = {}
): BareOutcome => {
  const trace: Array<Traced> = []
  const machine = new BareMachine({
    guest,
    operations: STRATEGIES[0]!.operations,
    vcpus,
    profile,
    seed: options.seed ?? 1,
    kvmTrace: (thread, point, text) => trace.push({ thread: thread.name, ns: thread.time, point, text })
  })
  options.prepare?.(machine)
  for (let chunks = 0; machine.stepMany(1_000); chunks++) {
    if (chunks > 2_000) return { machine, failure: "the guest does not come to its end", trace }
  }
  return { machine, failure: machine.failure(), trace }
}
