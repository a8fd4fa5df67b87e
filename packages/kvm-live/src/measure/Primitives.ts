import type { PrimitiveName } from "@vmpl-lab/sim"
import type { Measured } from "./Measure.ts"

/** A figure in ns with the range of its rounds. */
export interface Figure {
  readonly ns: number
  readonly low: number
  readonly high: number
  /** Ids of the cases that it is made of. */
  readonly cases: ReadonlyArray<string>
  /** Samples behind it: the fewest of its cases. */
  readonly samples: number
  /** Why it is doubtful, or null. */
  readonly noisy: string | null
}

/** One primitive, or several of which only the sum can be measured. */
export interface MeasuredPrimitive {
  readonly primitives: ReadonlyArray<PrimitiveName>
  readonly figure: Figure
  readonly note: string
}

const figure = ({ id, summary, net, overhead }: Measured): Figure => ({
  ns: net,
  low: Math.max(0, Math.min(...summary.rounds) - overhead),
  high: Math.max(0, Math.max(...summary.rounds) - overhead),
  cases: [id],
  samples: summary.samples,
  noisy: summary.noisy
})

/** `a` without `b`: what is left of a path when a known part is taken off. */
const minus = (a: Figure, b: Figure): Figure => {
  const ns = Math.max(0, a.ns - b.ns)
  return {
    ns,
    low: Math.min(ns, Math.max(0, a.low - b.high)),
    high: Math.max(ns, a.high - b.low),
    cases: [...a.cases, ...b.cases],
    samples: Math.min(a.samples, b.samples),
    noisy: a.noisy ?? b.noisy
  }
}

const times = ({ ns, low, high, ...rest }: Figure, factor: number): Figure => ({
  ns: ns * factor,
  low: low * factor,
  high: high * factor,
  ...rest
})

/**
 * Primitives of the cost model out of what was measured, as far as the cases were. Differences of medians: a path that
 * contains another one is measured with it and without.
 */
export const primitivesOf = (measured: ReadonlyArray<Measured>): ReadonlyArray<MeasuredPrimitive> => {
  const cases = new Map(measured.map((one) => [one.id, figure(one)]))
  const found: Array<MeasuredPrimitive> = []
  const add = (
    primitives: ReadonlyArray<PrimitiveName>,
    note: string,
    make: (get: (id: string) => Figure) => Figure
  ) => {
    try {
      found.push({
        primitives,
        note,
        figure: make((id) => {
          const one = cases.get(id)
          if (one === undefined) throw new Missing()
          return one
        })
      })
    } catch (error) {
      if (!(error instanceof Missing)) throw error
    }
  }
  const switchSum = (get: (id: string) => Figure): Figure => minus(get("port-write-long"), get("kernel-exit"))
  add(["vmexit_sev_snp", "kvm_dispatch", "vmrun_sev_snp"], "CPUID served in the kernel, an ordinary guest.", (get) =>
    get("kernel-exit")
  )
  add(["userspace_exit", "userspace_entry"], "KVM_RUN to a port write, less an exit served in the kernel.", switchSum)
  add(["ioctl"], "KVM_GET_API_VERSION.", (get) => get("null-ioctl"))
  add(["vcpu_load", "vcpu_put"], "KVM_RUN with immediate_exit, less an ioctl that does nothing.", (get) =>
    minus(get("immediate-exit"), get("null-ioctl"))
  )
  add(["thread_handoff_same_core"], "Half of a futex hand-off there and back on one CPU.", (get) =>
    times(get("futex-one-core"), 0.5)
  )
  add(["thread_handoff_cross_core"], "Half of a futex hand-off there and back between two CPUs.", (get) =>
    times(get("futex-two-cores"), 0.5)
  )
  add(
    ["ipi_kick"],
    "A signal to a vCPU in the guest until user space, less half of an exit and half of a return.",
    (get) => minus(minus(get("kick-signal"), times(get("kernel-exit"), 0.5)), times(switchSum(get), 0.5))
  )
  add(["create_vm"], "KVM_CREATE_VM, less an ioctl that does nothing.", (get) =>
    minus(get("create-vm"), get("null-ioctl"))
  )
  add(["memslot_setup"], "The first memory slot of a VM, less an ioctl that does nothing.", (get) =>
    minus(get("memory-slot"), get("null-ioctl"))
  )
  add(["create_vcpu_first"], "The first vCPU of a VM with the mapping of kvm_run, less an ioctl.", (get) =>
    minus(get("create-vcpu-first"), get("null-ioctl"))
  )
  add(["create_vcpu"], "A later vCPU with the mapping of kvm_run, less an ioctl.", (get) =>
    minus(get("create-vcpu-next"), get("null-ioctl"))
  )
  add(["thread_spawn"], "pthread_create in the creating thread.", (get) => get("create-thread"))
  return found
}

/** A case that a primitive needs was not measured. */
class Missing extends Error {}
