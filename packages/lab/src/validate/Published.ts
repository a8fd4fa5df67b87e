import type { ProbeTimes } from "./RunProbes.ts"

/** What the model computes on the machine of a published result. */
export interface Computed {
  readonly times: ProbeTimes
  /** Median round trip between VMPL2 and VMPL0 of the strategy in which KVM switches, virtual ns. */
  readonly roundTripNs: number
}

/** One published result that the model can be asked for. */
export interface PublishedResult {
  readonly id: string
  readonly what: string
  /** Core clock of the machine that it was measured on, if it is known. */
  readonly clockMhz: number | null
  readonly value: number
  readonly low?: number
  readonly high?: number
  readonly unit: "ns" | "ratio"
  /** Ids of the cost collection that it is made from. */
  readonly sources: ReadonlyArray<string>
  /** A profile that names this source has been fitted to the result; null when no price follows from it. */
  readonly fitsIf: string | null
  /** Why the two are not the same thing, or null when they are. */
  readonly notComparable: string | null
  readonly predict: (computed: Computed) => number
}

const probe =
  (name: string) =>
  ({ times }: Computed): number => {
    const ns = times.get(name)
    if (ns === undefined) throw new Error(`no probe is called ${name}`)
    return ns
  }

const GENOA_MHZ = 2_400
const MILAN_MHZ = 2_800

const genoa = (source: string, what: string, value: number, name: string): PublishedResult => ({
  id: source,
  what,
  clockMhz: GENOA_MHZ,
  value,
  unit: "ns",
  sources: [source],
  fitsIf: source,
  notComparable: null,
  predict: probe(name)
})

/** #VC rows that are published as the part that #VC adds to an explicit VMGEXIT. */
const withShare = (source: string, what: string, plain: number, share: number, name: string): PublishedResult => ({
  ...genoa(source, what, plain + share, name),
  id: `${source}-with-vc`,
  // The row without #VC may have been fitted; what #VC adds here has not.
  fitsIf: null
})

/** Cycles per page of a permission sweep over 4 GiB and over 8 GiB. */
const SWEEP_CYCLES = { GIB4: 2_099, GIB8: 2_032 } as const
const SWEEP = "verismo-rmp-sweep-4k-derived"
const PAGES_PER_GIB = 0x4_0000

/**
 * EPYC 9654P: Misono et al., Confidential VMs Explained, POMACS 8(3) art. 36, figure 5(a). EPYC 7543P: Zhou et al.,
 * VeriSMo, OSDI 2024, table 1. Acceptance: Kalra, mailing list.
 */
export const PUBLISHED: ReadonlyArray<PublishedResult> = [
  genoa("sigm-snpx-hypercall", "hypercall, explicit VMGEXIT", 2_965, "explicit hypercall"),
  genoa("sigm-snpx-cpuid1", "CPUID leaf 1, explicit VMGEXIT", 2_943, "explicit cpuid-1"),
  genoa("sigm-snpx-cpuid40m", "CPUID 0x40000000, explicit VMGEXIT", 2_955, "explicit cpuid-hypervisor"),
  genoa("sigm-snpx-msr", "RDMSR APIC base, explicit VMGEXIT", 3_042, "explicit rdmsr-apic-base"),
  genoa("sigm-snpx-inb", "IN port 0x40, explicit VMGEXIT", 3_364, "explicit in-pit"),
  genoa("sigm-snp-hypercall", "hypercall, #VC", 3_927, "#VC hypercall"),
  genoa("sigm-snp-cpuid40m", "CPUID 0x40000000, #VC, no exit", 730, "#VC cpuid-hypervisor"),
  withShare("sigm-snpx-cpuid1", "CPUID leaf 1, #VC", 2_943, 1_321, "#VC cpuid-1"),
  withShare("sigm-snpx-msr", "RDMSR APIC base, #VC", 3_042, 908, "#VC rdmsr-apic-base"),
  withShare("sigm-snpx-inb", "IN port 0x40, #VC", 3_364, 1_030, "#VC in-pit"),
  {
    id: SWEEP,
    what: "RMPADJUST sweep, one page",
    clockMhz: MILAN_MHZ,
    // 2,065 cycles at 2.8 GHz.
    value: 738,
    low: 726,
    high: 750,
    unit: "ns",
    sources: [SWEEP],
    fitsIf: SWEEP,
    notComparable: null,
    predict: probe("RMPADJUST 512")
  },
  {
    id: "verismo-sweep-doubled",
    what: "RMPADJUST sweep, twice the pages",
    clockMhz: MILAN_MHZ,
    value: Number(((2 * SWEEP_CYCLES.GIB8) / SWEEP_CYCLES.GIB4).toFixed(3)),
    unit: "ratio",
    sources: [SWEEP],
    fitsIf: null,
    notComparable: null,
    predict: (computed) => (2 * probe("RMPADJUST 512")(computed)) / probe("RMPADJUST 256")(computed)
  },
  {
    id: "kalra-accept-derived",
    what: "acceptance of one page of 4 KiB",
    clockMhz: null,
    // 205 s for 128 GB.
    value: Math.round(205e9 / (128 * PAGES_PER_GIB)),
    unit: "ns",
    sources: ["kalra-eager-boot", "kalra-lazy-boot"],
    fitsIf: null,
    notComparable: "machine and page size are not stated; here no page state change goes before it",
    predict: probe("PVALIDATE 512")
  },
  {
    id: "sigm-userspace-rt-derived",
    what: "user-space port read, less a hypercall",
    clockMhz: null,
    value: 2_470,
    low: 2_326,
    high: 2_470,
    unit: "ns",
    sources: ["sigm-userspace-rt-derived"],
    fitsIf: null,
    notComparable: "Intel, and QEMU with its device model instead of a minimal VMM",
    predict: (computed) => probe("explicit in-user-space")(computed) - probe("explicit hypercall")(computed)
  },
  {
    id: "verismo-switch-rt-us",
    what: "VMPL round trip, KVM switches",
    clockMhz: MILAN_MHZ,
    value: 12_000,
    low: 10_000,
    high: 14_000,
    unit: "ns",
    sources: ["verismo-switch-rt-us"],
    fitsIf: null,
    notComparable: "Hyper-V, not KVM, and the service is included: an upper context",
    predict: ({ roundTripNs }) => roundTripNs
  }
]
