import * as Schema from "effect/Schema"

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))

/** KVM lets no periodic timer run faster (min_timer_period_us). */
const TIMER_PERIOD_MIN = 200_000

/** Levels that take interrupts: the SVSM's and the guest's. */
export const INTERRUPT_VMPLS = [0, 2] as const

const Source = Schema.Struct({
  /** A device's MSI, the timer of the local APIC, or an IPI of the previous vCPU at the same level. */
  source: Schema.Literals(["device", "timer", "ipi"]),
  /** Level that it is meant for. */
  vmpl: Schema.Literals(INTERRUPT_VMPLS),
  /** Mean time between two of one vCPU, virtual ns. */
  periodNs: Schema.optionalKey(int(10_000, 1_000_000_000)),
  /** IPIs of the SVSM only: calls that it serves between two. */
  everyCalls: Schema.optionalKey(int(1, 1_000_000))
})
export type InterruptSource = typeof Source.Type

const isSvsmIpi = ({ source, vmpl }: InterruptSource): boolean => source === "ipi" && vmpl === 0

type Issue = { readonly path: ReadonlyArray<PropertyKey>; readonly issue: string }

const sourceIssue = (source: InterruptSource, at: number, all: ReadonlyArray<InterruptSource>): Issue | undefined => {
  const path = ["sources", at]
  if (all.findIndex((other) => other.source === source.source && other.vmpl === source.vmpl) !== at)
    return { path, issue: "each source once for a level" }
  if (isSvsmIpi(source) !== (source.everyCalls !== undefined))
    return { path, issue: "everyCalls for IPIs at VMPL0, and only for those" }
  if (isSvsmIpi(source) === (source.periodNs !== undefined))
    return { path, issue: "periodNs for all but the IPIs at VMPL0" }
  if (source.source === "timer" && source.periodNs! < TIMER_PERIOD_MIN)
    return { path: [...path, "periodNs"], issue: `at least ${TIMER_PERIOD_MIN} for a timer` }
  return undefined
}

/** Keys of the workload `interrupts`, under `interrupts`. */
export const InterruptsKeys = Schema.Struct({
  /** How VMPL2 is injected into. Under `alternate` the SVSM does it, and has `restricted` itself. */
  injection: Schema.Literals(["normal", "restricted", "alternate"]),
  /** How VMPL0 is; `blocked`: restricted without a doorbell page, so that nothing goes in. */
  svsmInjection: Schema.Literals(["normal", "restricted", "blocked"]),
  sources: Schema.Array(Source),
  /** Of the guest's time, per mille, how much it spends in SVSM calls. */
  svsmShare: int(0, 1_000),
  /** Pages that one call validates and rescinds; 0 for the shortest call there is. */
  pagesPerCall: int(0, 200),
  /** How long the sources run, virtual ns. */
  durationNs: int(100_000, 2_000_000_000),
  /** Under `alternate`: when the guest gives up the SVSM's APIC, ns after the sources began; never when left out. */
  leavesApicAtNs: Schema.optionalKey(int(0, 2_000_000_000))
}).check(
  Schema.makeFilter((keys) => {
    if (keys.injection === "alternate" && keys.svsmInjection !== "restricted")
      return { path: ["svsmInjection"], issue: "restricted, as injection is alternate" }
    if (keys.injection === "alternate" && keys.sources.some(({ source, vmpl }) => source === "ipi" && vmpl === 2))
      return { path: ["sources"], issue: "no IPIs at VMPL2 where injection is alternate" }
    if (keys.leavesApicAtNs !== undefined && keys.injection !== "alternate")
      return { path: ["leavesApicAtNs"], issue: "injection: alternate, as there is no other emulated APIC" }
    if (keys.leavesApicAtNs !== undefined && keys.leavesApicAtNs >= keys.durationNs)
      return { path: ["leavesApicAtNs"], issue: "less than durationNs" }
    if (keys.svsmInjection === "blocked" && keys.sources.some(({ source, vmpl }) => source !== "device" && vmpl === 0))
      return { path: ["sources"], issue: "no timer and no IPIs at VMPL0 where nothing goes in there" }
    for (const [at, source] of keys.sources.entries()) {
      const issue = sourceIssue(source, at, keys.sources)
      if (issue !== undefined) return issue
    }
    return undefined
  })
)
export type Interrupts = typeof InterruptsKeys.Type
