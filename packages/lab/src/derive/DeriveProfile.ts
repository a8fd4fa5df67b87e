import { type Cost, PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import { mapCost, priceFloor } from "../sensitivity/Prices.ts"

/** How the price of a primitive follows another machine. */
export type Scaling =
  /** With the core clock alone: code and microcode that run from the core's caches. */
  | "clock"
  /** With the clock, and with what side-channel mitigations cost on the way into or out of the kernel or a guest. */
  | "clock and mitigations"
  /** Not at all: something else than the core does the work, or a timer. */
  | "none"

const MITIGATED: ReadonlySet<PrimitiveName> = new Set([
  "vmexit_sev_snp",
  "vmrun_sev_snp",
  "vc_exception",
  "userspace_exit",
  "userspace_entry",
  "ioctl",
  "futex_wake",
  "futex_wait",
  "eventfd_signal",
  "eventfd_wait",
  "signal_send",
  "signal_delivery"
])

/** The AMD-SP has a clock of its own, idle states have voltages to wait for, a grace period goes by the kernel's tick. */
const NOT_SCALED: ReadonlySet<PrimitiveName> = new Set([
  "launch_update_fixed",
  "launch_update_4k",
  "deep_idle_exit",
  "srcu_grace_period",
  "create_vm_tail",
  "psp_guest_request"
])

export const scalingOf = (name: PrimitiveName): Scaling =>
  NOT_SCALED.has(name) ? "none" : MITIGATED.has(name) ? "clock and mitigations" : "clock"

/** What a profile of another machine is derived by. */
export interface Derivation {
  readonly name: string
  readonly machine: string
  /** Core clock of the other machine divided by the profile's. */
  readonly clockRatio: number
  /** Cost of an entry or exit there divided by the same here, at equal clocks. */
  readonly mitigations: number
}

const number = (value: number): string => String(Number(value.toPrecision(6)))

/**
 * A profile of another machine by two numbers. Whatever is scaled rests on that rule, hence is assumed, whatever the
 * source of what it was scaled from; what the rule leaves alone is kept as it is. Factors of 1 change no cost.
 */
export const deriveProfile = (profile: Profile, { name, machine, clockRatio, mitigations }: Derivation): Profile => {
  const clock = `clock ratio ${number(clockRatio)}`
  const how: { readonly [K in Scaling]: readonly [factor: number, by: string] } = {
    clock: [1 / clockRatio, clock],
    "clock and mitigations": [mitigations / clockRatio, `${clock}, mitigation factor ${number(mitigations)}`],
    none: [1, ""]
  }
  const costOf = (primitive: PrimitiveName): Cost => {
    const cost = profile.primitives[primitive]
    const [factor, by] = how[scalingOf(primitive)]
    if (factor === 1) return cost
    const floor = priceFloor(primitive)
    const scaled = mapCost(cost, (ns) => Math.max(Math.round(ns * factor), floor))
    const note = `Derived from ${profile.name} (${cost.basis}, ${cost.ns} ns) by ${by}.`
    return { ...scaled, basis: "assumed", note: cost.note === undefined ? note : `${note} ${cost.note}` }
  }
  const primitives = Object.fromEntries(PRIMITIVES.map((primitive) => [primitive, costOf(primitive)])) as Record<
    PrimitiveName,
    Cost
  >
  const sums = profile.sums.map((sum) => {
    const ns = sum.primitives.reduce((total, primitive) => total + primitives[primitive].ns, 0)
    if (sum.primitives.every((primitive) => primitives[primitive] === profile.primitives[primitive])) return sum
    // The sum's own range keeps its proportion: its parts have other, wider ones.
    const scaled = (bound: number): number => (sum.ns === 0 ? bound : Math.round((bound * ns) / sum.ns))
    return {
      ...sum,
      ns,
      ...(sum.low === undefined ? {} : { low: Math.min(scaled(sum.low), ns) }),
      ...(sum.high === undefined ? {} : { high: Math.max(scaled(sum.high), ns) }),
      basis: "assumed" as const
    }
  })
  const { clockMhz } = profile
  return {
    ...profile,
    name,
    machine,
    ...(clockMhz === undefined ? {} : { clockMhz: Math.round(clockMhz * clockRatio) }),
    primitives,
    sums
  }
}
