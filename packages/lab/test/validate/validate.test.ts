import { describe, expect, it } from "vitest"
import { withPrices } from "../../src/sensitivity/Prices.ts"
import { validate } from "../../src/validate/Validate.ts"
import { validationText } from "../../src/validate/ValidationText.ts"
import { profile } from "../fixture.ts"
import { ended } from "../sensitivity/linear.ts"

const result = ended(validate(profile, 1))
const row = (id: string, of = result) => of.rows.find((one) => one.id === id)!

describe("published results against the built-in profile", () => {
  // What docs/model.md says of the errors; a row that gets better or worse has to say so there.
  it.each([
    ["sigm-snpx-hypercall", "in-sample", 0],
    ["sigm-snp-hypercall", "in-sample", 0],
    ["verismo-rmp-sweep-4k-derived", "in-sample", -0.1],
    ["sigm-snpx-cpuid1", "out-of-sample", 0.7],
    ["sigm-snpx-cpuid40m", "out-of-sample", 0.3],
    ["sigm-snpx-msr", "out-of-sample", -2.5],
    ["sigm-snpx-inb", "out-of-sample", -1.5],
    ["sigm-snp-cpuid40m", "out-of-sample", 31.8],
    ["sigm-snpx-cpuid1-with-vc", "out-of-sample", -7.9],
    ["sigm-snpx-msr-with-vc", "out-of-sample", -0.6],
    ["sigm-snpx-inb-with-vc", "out-of-sample", -2.7],
    ["verismo-sweep-doubled", "out-of-sample", 3.3],
    ["kalra-accept-derived", "not comparable", -10.5],
    ["sigm-userspace-rt-derived", "not comparable", -54.7],
    ["verismo-switch-rt-us", "not comparable", -56.2]
  ] as const)("%s is %s, error %d %%", (id, use, error) => {
    expect(row(id).use).toBe(use)
    expect(row(id).errorPercent).toBeCloseTo(error, 1)
  })

  it("has no other rows, and none twice", () => {
    expect(new Set(result.rows.map(({ id }) => id)).size).toBe(15)
    expect(result.rows).toHaveLength(15)
  })

  it("sums up the errors of what can be compared", () => {
    expect(result.worst.inSample).toBeLessThan(0.5)
    expect(result.worst.outOfSample).toBeCloseTo(31.8, 1)
  })

  it("has sweeps in a straight line", () => {
    expect(result.sweeps.map(({ instruction, pages }) => `${instruction} ${pages}`)).toHaveLength(8)
    expect(result.sweeps.find(({ pages }) => pages === 64)!.ns).toBe(64 * profile.primitives.rmpadjust_4k.ns)
    expect(result.sweepDeviationPercent).toBe(0)
  })

  it("takes rows of another machine from the profile at its clock", () => {
    expect(row("verismo-rmp-sweep-4k-derived")).toMatchObject({ clockMhz: 2_800, predicted: 737 })
    expect(row("sigm-snpx-hypercall").clockMhz).toBeNull()
    const { clockMhz: _, ...unknown } = profile
    const plain = ended(validate(unknown, 1))
    expect(row("verismo-rmp-sweep-4k-derived", plain)).toMatchObject({ clockMhz: null, predicted: 860 })
  })

  it("says it in at most 100 columns", () => {
    const text = validationText(result)
    expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(100)
    expect(text).toMatchSnapshot()
  })
})

describe("another profile", () => {
  it("predicts other results: they come from the run, step by step", () => {
    const moved = withPrices(profile, {
      vmrun_sev_snp: 1_000,
      vc_exception: 730,
      port_emulation_in_kernel: 400,
      vmm_dispatch: 1_850
    })
    const other = ended(validate(moved, 1))
    expect(row("sigm-snpx-msr", other).predicted).toBe(3_065)
    expect(row("sigm-snpx-inb", other).predicted).toBe(3_465)
    expect(row("sigm-snp-cpuid40m", other).predicted).toBe(730)
    expect(row("sigm-snpx-cpuid1-with-vc", other).predicted).toBe(3_795)
    expect(row("sigm-userspace-rt-derived", other).predicted).toBe(310 + 310 + 1_850)
  })

  it("is in-sample only by the sources that it names", () => {
    const { primitives, sums } = profile
    const guessed = {
      ...profile,
      primitives: { ...primitives, vc_exception: { ...primitives.vc_exception, source: "none" } },
      sums: sums.map((sum) => ({ ...sum, source: "sigm-snpx-cpuid1" }))
    }
    const other = ended(validate(guessed, 1))
    expect(row("sigm-snp-hypercall", other).use).toBe("out-of-sample")
    expect(row("sigm-snpx-hypercall", other).use).toBe("out-of-sample")
    expect(row("sigm-snpx-cpuid1", other).use).toBe("in-sample")
  })
})
