import {
  backendCaution,
  type MeasuredPrimitive,
  type MeasureResult,
  type NotMeasured,
  type Probe
} from "@vmpl-lab/kvm-live"
import type { Profile } from "@vmpl-lab/sim"
import { grid } from "../Grid.ts"
import { count, duration } from "../Units.ts"
import { wrap } from "../Wrap.ts"
import type { errorsByStrategy, LiveComparison } from "./LiveCompare.ts"

/** What every live result says of itself. */
export interface LiveContext {
  readonly commit: string
  readonly probe: Probe
  readonly rounds: number
  readonly quick: boolean
}

const machineLine = ({ cpu, cpus, kernel, nested }: Probe): string =>
  `${cpu}, ${cpus} CPUs that this process may use, Linux ${kernel}${nested ? "; this machine is itself a guest" : ""}`

/** Stands over every table: which backend it is, and that its figures are no SEV-SNP figures. */
const caution = ({ probe, quick }: LiveContext): string =>
  [
    `${probe.backend} on ${machineLine(probe)}.`,
    backendCaution(probe.backend) ?? "Ordinary guests: transitions of encrypted ones cost more.",
    ...(quick ? ["A quick run: good for nothing but seeing that it works."] : [])
  ]
    .map((line) => wrap(line))
    .join("\n")

const notMeasuredText = (rows: ReadonlyArray<NotMeasured>): ReadonlyArray<string> =>
  rows.length === 0 ? [] : ["", "Not measured:", ...rows.map(({ what, why }) => wrap(`  ${what}: ${why}`))]

const noisyText = (rows: ReadonlyArray<{ readonly name: string; readonly noisy: string | null }>) => {
  const noisy = rows.filter((row) => row.noisy !== null)
  return noisy.length === 0
    ? []
    : ["", "NOISY, not to be relied on:", ...noisy.map(({ name, noisy }) => wrap(`  ${name}: ${noisy}`))]
}

/** What `live probe` prints. */
export const probeText = (probe: Probe): string =>
  [
    grid(
      ["what", "found"],
      [],
      [
        ["device", probe.path],
        ["API version", String(probe.apiVersion)],
        ["backend", probe.backend],
        ["CPU", probe.cpu],
        ["CPUs", String(probe.cpus)],
        ["kernel", probe.kernel],
        ["itself a guest", probe.nested ? "yes" : "no"],
        ["halt_poll_ns", probe.haltPollNs === null ? "not readable" : String(probe.haltPollNs)],
        ...Object.entries(probe.capabilities).map(([name, value]) => [
          `KVM_CAP_${name}`,
          value === 0 ? "no" : String(value)
        ])
      ]
    ),
    wrap(backendCaution(probe.backend) ?? "kvm_amd: transitions of ordinary guests on AMD hardware."),
    ...notMeasuredText(probe.notMeasurable)
  ].join("\n")

/** What `live measure` prints. */
export const measureText = (
  { measured, notMeasured }: MeasureResult,
  primitives: ReadonlyArray<MeasuredPrimitive>,
  context: LiveContext
): string =>
  [
    caution(context),
    "",
    wrap("Measured: without what the clock, the binding and the guest's own instructions add, which is shown as extra"),
    grid(
      ["case", "samples", "median", "p10", "p90", "p99", "extra"],
      [1, 2, 3, 4, 5, 6],
      measured.map(({ id, summary, net, overhead }) => [
        summary.noisy === null ? id : `${id} *`,
        count(summary.samples),
        duration(net),
        duration(Math.max(0, summary.p10 - overhead)),
        duration(Math.max(0, summary.p90 - overhead)),
        duration(Math.max(0, summary.p99 - overhead)),
        duration(overhead)
      ])
    ),
    "",
    "Prices made of them; everything else in the profile is inherited",
    grid(
      ["primitive", "ns", "range of rounds", "from"],
      [1, 2],
      primitives.map(({ primitives: names, figure }) => [
        names.join(" +\n"),
        Math.round(figure.ns).toString(),
        `${Math.round(figure.low)} to ${Math.round(figure.high)}`,
        figure.cases.join(",\n")
      ])
    ),
    ...noisyText(measured.map(({ id, summary }) => ({ name: id, noisy: summary.noisy }))),
    ...notMeasuredText(notMeasured)
  ].join("\n")

/** The same for programs, without the single samples. */
export const measureJson = (
  { measured, notMeasured }: MeasureResult,
  primitives: ReadonlyArray<MeasuredPrimitive>,
  { commit, probe, rounds, quick }: LiveContext
) => ({
  commit,
  probe,
  rounds,
  quick,
  measured: measured.map(({ id, what, summary, net, overhead }) => ({ id, what, net, overhead, ...summary })),
  primitives: primitives.map(({ primitives, figure, note }) => ({ primitives, ...figure, note })),
  notMeasured
})

/** Every sample as it was taken, in ns, by case and round. */
export const samplesJson = ({ measured }: MeasureResult, { commit, probe, rounds, quick }: LiveContext) => ({
  commit,
  probe,
  rounds,
  quick,
  samples: Object.fromEntries(measured.map(({ id, raw }) => [id, raw.map((round) => [...round])]))
})

const error = (percent: number): string => `${percent < 0 ? "-" : "+"}${Math.abs(percent).toFixed(1)} %`

const roundTripTable = ({ roundTrips }: LiveComparison): string =>
  grid(
    ["strategy", "variant", "placement", "live", "p10", "p90", "model", "error"],
    [3, 4, 5, 6, 7],
    roundTrips.map((row) => [
      row.noisy === null ? row.strategy : `${row.strategy} *`,
      row.variant ?? "-",
      row.placement,
      duration(row.live),
      duration(row.p10),
      duration(row.p90),
      duration(row.predicted),
      error(row.errorPercent)
    ])
  )

const compared = (comparison: LiveComparison, context: LiveContext): ReadonlyArray<string> => [
  caution(context),
  "",
  wrap(
    "Run VMPL, there and back: live, without the binding and the guests' own instructions, and the model given only " +
      "what was measured"
  ),
  roundTripTable(comparison),
  ...noisyText(
    comparison.roundTrips.map(({ strategy, variant, placement, noisy }) => ({
      name: [strategy, variant, placement].filter((part) => part !== null).join(" "),
      noisy
    }))
  )
]

/** What `live compare` prints. */
export const compareText = (comparison: LiveComparison, profile: Profile, context: LiveContext): string =>
  [
    ...compared(comparison, context),
    "",
    wrap(
      "AP create at a level that has no vCPU objects yet: user space's part of it, mean per AP over the guest. " +
        "multi-vmpl-vcpu needs no ioctl."
    ),
    grid(
      ["strategy", "variant", "vCPUs", "live", "model", "error"],
      [2, 3, 4, 5],
      comparison.apCreate.map((row) => [
        row.strategy,
        row.variant,
        String(row.vcpus),
        duration(row.live),
        duration(row.predicted),
        error(row.errorPercent)
      ])
    ),
    wrap(`Profile ${profile.name}. docs/live.md tells what carries over to SEV-SNP hardware.`),
    ...notMeasuredText(comparison.notMeasured)
  ].join("\n")

/** What `live validate` prints. */
export const validateText = (
  errors: ReturnType<typeof errorsByStrategy>,
  comparison: LiveComparison,
  context: LiveContext
): string =>
  [
    ...compared(comparison, context),
    "",
    "Median error of each strategy, the upper bound aside",
    grid(
      ["strategy", "cases", "median error"],
      [1, 2],
      errors.map(({ strategy, cases, medianErrorPercent }) => [
        strategy,
        String(cases),
        `${medianErrorPercent.toFixed(1)} %`
      ])
    ),
    ...notMeasuredText(comparison.notMeasured)
  ].join("\n")
