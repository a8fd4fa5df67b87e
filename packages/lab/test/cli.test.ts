import { execFile } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { profileText } from "./fixture.ts"

const launcher = fileURLToPath(new URL("../bin/vmpl-lab.js", import.meta.url))

interface Outcome {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** What the shell sees of one command line. */
const shell = (args: ReadonlyArray<string>, cwd?: string): Promise<Outcome> =>
  new Promise((resolve) => {
    const child = execFile(process.execPath, [launcher, ...args], { cwd }, (_error, out, err) =>
      resolve({ code: child.exitCode, out, err })
    )
  })

let folder = ""
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "vmpl-lab-test-"))
  writeFileSync(join(folder, "empty.fd"), "")
  writeFileSync(join(folder, "zero.fd"), Buffer.alloc(8192))
  writeFileSync(join(folder, "short.fd"), Buffer.alloc(100))
  writeFileSync(join(folder, "large.fd"), Buffer.alloc(16 * 1024 * 1024 + 1))
  writeFileSync(join(folder, "bad-profile.json"), profileText.replace('"ns": 142', '"ns": -142'))
  writeFileSync(join(folder, "no-clock.json"), profileText.replace(/ *"clockMhz": 2400,\n/, ""))
  writeFileSync(join(folder, "bad-scenario.json"), '{"name": "a",\n')
})
afterAll(() => rmSync(folder, { recursive: true }))

describe("bad usage and bad input: exit code 2, one line on standard error, nothing on standard output", () => {
  const cases: ReadonlyArray<readonly [args: string, says: RegExp]> = [
    ["", /^no command given, expected compare, .* or layout/],
    ["compile", /^"compile": unknown command, expected compare, .* or layout/],
    ["service", /^no command given, expected run or latency/],
    ["service walk", /^"walk": unknown command, expected run or latency/],
    ["service run", /^FILE: missing, expected this argument/],
    ["--fast", /^--fast: unknown option/],
    ["compare --fast", /^--fast: unknown option/],
    ["compare --vcpu 3", /^--vcpu: unknown option, did you mean --vcpus\?/],
    ["compare extra", /^"extra": unexpected argument/],
    [
      "compare --strategy best",
      /^--strategy: "best" unknown, expected one of multi-vmpl-vcpu, vcpu-per-vmpl, vm-per-vmpl, planes, or with a variant/
    ],
    ["compare --vcpus 0", /^--vcpus: expected a whole number from 1 to 512, got "0"$/],
    ["compare --vcpus 513", /^--vcpus: .* got "513"$/],
    ["compare --vcpus abc", /^--vcpus: .* got "abc"$/],
    ["compare --vcpus 1e1", /^--vcpus: .* got "1e1"$/],
    ["compare --vcpus", /^--vcpus: no value/],
    ["compare --vcpus 1 --vcpus 2", /^--vcpus: expected at most 1 value/],
    ["compare --seed -1", /^--seed: .* got "-1"$/],
    ["compare --calls 1000001", /^--calls: .* got "1000001"$/],
    ["compare --boots 0", /^--boots: .* got "0"$/],
    ["compare --profile nothing", /^--profile: "nothing" unknown, expected epyc-9654p or the path/],
    ["compare --profile ./nothing.json", /^\.\/nothing\.json: cannot be read: no such file$/],
    ["compare --profile bad-profile.json", /^bad-profile\.json: primitives\.ioctl\.ns: expected .*, got -142$/],
    ["compare --scenario nothing", /^--scenario: "nothing" unknown, expected default or the path/],
    ["compare --scenario bad-scenario.json", /^bad-scenario\.json: not valid JSON: /],
    ["compare --firmware missing.fd", /^missing\.fd: cannot be read: no such file$/],
    ["compare --firmware .", /^\.: cannot be read: /],
    ["compare --firmware empty.fd", /^empty\.fd: size is 0/],
    ["compare --firmware short.fd", /^short\.fd: size is 100/],
    ["compare --firmware large.fd", /^large\.fd: larger than 16777216 bytes/],
    ["compare --firmware zero.fd", /^zero\.fd: /],
    [
      "sensitivity --strategy best",
      /^--strategy: "best" unknown, expected one of multi-vmpl-vcpu, vcpu-per-vmpl, vm-per-vmpl, planes, or with/
    ],
    ["sensitivity --strategy multi-vmpl-vcpu,", /^--strategy: "" unknown/],
    ["sensitivity --operation fly", /^--operation: expected .*, got "fly"$/],
    ["sensitivity --calls 0", /^--calls: expected at least 1 for --operation run-vmpl-round-trip, got 0$/],
    ["sensitivity --draws 0", /^--draws: expected a whole number from 1 to 99, got "0"$/],
    ["sensitivity --profile bad-profile.json", /^bad-profile\.json: primitives\.ioctl\.ns: /],
    ["sensitivity --scenario nothing", /^--scenario: "nothing" unknown/],
    ["break-even --primitive warp", /^--primitive: "warp" unknown, expected one of vmexit_sev_snp, /],
    ["break-even --primitive ioctl,ioctl", /^--primitive: ioctl given twice, expected once$/],
    ["break-even --primitive ioctl,", /^--primitive: "" unknown/],
    ["break-even --a multi-vmpl-vcpu --b multi-vmpl-vcpu", /^--b: multi-vmpl-vcpu is --a too, expected another/],
    ["break-even --b best", /^--b: "best" unknown/],
    ["break-even --bound 0", /^--bound: expected a whole number from 1 to 1000000000, got "0"$/],
    ["validate --profile nothing", /^--profile: "nothing" unknown/],
    ["validate --strict", /^--strict: unknown option/],
    ["profile", /^no command given, expected derive, see --help$/],
    ["profile copy", /^"copy": unknown command, expected derive$/],
    ["profile derive", /^--clock-ghz: missing, expected this option or --clock-ratio$/],
    ["profile derive --clock-ghz 0", /^--clock-ghz: expected a number from 0\.1 to 100, got "0"$/],
    ["profile derive --clock-ghz 2e1", /^--clock-ghz: .* got "2e1"$/],
    ["profile derive --clock-ghz 3 --clock-ratio 2", /^--clock-ratio: given with --clock-ghz, expected one of them$/],
    ["profile derive --clock-ratio 1 --mitigations none", /^--mitigations: expected a number .* got "none"$/],
    ["profile derive --clock-ratio 0.01", /^derived profile: clockMhz: expected a whole number of MHz .*, got 24$/],
    ["profile derive --clock-ghz 3 --from no-clock.json", /^no-clock\.json: clockMhz: missing, expected this key or/],
    ["profile derive --clock-ratio 2 -o missing/out.json", /^--output: missing\/out\.json: cannot be written: /],
    ["profile derive --from nothing --clock-ratio 2", /^--from: "nothing" unknown/],
    ["compare --replications 5", /^--replications: expected 0 or a whole number from 6 to 1000, got 5$/],
    ["compare --seed 9007199254740991", /^--seed: expected at most 9007199254740981 with 10 replications, got /],
    ["compare --replications 1001", /^--replications: expected a whole number from 0 to 1000, got "1001"$/],
    ["compare --baseline best", /^--baseline: "best" not among the strategies run, expected one of multi-vmpl-vcpu, /],
    [
      "compare --strategy multi-vmpl-vcpu --baseline vm-per-vmpl/vmm-threads",
      /^--baseline: "vm-per-vmpl\/vmm-threads" not among the strategies run, expected one of multi-vmpl-vcpu$/
    ],
    ["live", /^no command given, expected probe, measure, compare or validate, see --help$/],
    ["live run", /^"run": unknown command, expected probe, measure, compare or validate$/],
    [
      "live compare --profile epyc-9654p",
      /^--profile: epyc-9654p has no measured price, expected a file of live measure$/
    ],
    ["live measure --rounds 0", /^--rounds: expected a whole number from 1 to 100, got "0"$/],
    ["measure", /^--firmware: missing/],
    ["measure --firmware missing.fd", /^missing\.fd: cannot be read: no such file$/],
    ["measure --firmware zero.fd --mode tdx", /^--mode: expected .*, got "tdx"$/],
    ["measure --firmware zero.fd --vcpu-type EPYC-v9", /^--vcpu-type: "EPYC-v9" unknown, expected one of EPYC, /],
    ["measure --firmware zero.fd --vcpu-type EPYC --vcpu-sig 1", /^--vcpu-sig: given with --vcpu-type/],
    ["measure --firmware zero.fd --append quiet", /^--append: given without --kernel/],
    ["measure --firmware zero.fd --initrd zero.fd", /^--initrd: given without --kernel/],
    ["measure --firmware zero.fd --guest-features 0xg", /^--guest-features: .* got "0xg"$/],
    ["replay", /^FILE: missing, expected this argument/],
    ["replay missing.jsonl", /^missing\.jsonl: cannot be read: no such file$/],
    ["replay .", /^\.: cannot be read: /],
    ["replay a b", /^"b": unexpected argument/],
    ["replay --explian a", /^--explian: unknown option, did you mean --explain\?/],
    ["replay empty.fd", /^empty\.fd: line 1: config: missing, expected the configuration/],
    ["replay zero.fd", /^zero\.fd: line 1: not valid JSON /],
    ["layout", /^PAGE: missing, expected this argument/],
    ["layout vmsa vmcb", /^"vmcb": unexpected argument/],
    ["layout vmsc", /^"vmsc": unknown layout, expected one of vmsa, vmcb, ghcb, rmp, rmpread, secrets, cpuid$/],
    ["layout toString --json", /^"toString": unknown layout, expected one of vmsa, /]
  ]
  it.concurrent.each(cases)("vmpl-lab %s", async (args, says) => {
    const { code, out, err } = await shell(args === "" ? [] : args.split(" "), folder)
    expect({ code, out }).toEqual({ code: 2, out: "" })
    expect(err).toMatch(/^vmpl-lab: [^\n]+\n$/)
    expect(err.slice("vmpl-lab: ".length, -1)).toMatch(says)
  })
})

describe("a live KVM that is not there: exit code 1, one line on standard error, nothing on standard output", () => {
  it.concurrent.each([
    ["live probe --device missing", /^missing does not exist: KVM is not loaded or not offered$/],
    ["live measure --device /dev/null", /^KVM_GET_API_VERSION fails with ENOTTY \(this KVM does not know it\)$/],
    ["live compare --device good-file", /^(good-file does not exist|good-file is no character device)/],
    ["live validate --device /dev/null", /^KVM_GET_API_VERSION fails with ENOTTY/]
  ] as const)("vmpl-lab %s", async (args, says) => {
    const { code, out, err } = await shell(args.split(" "), folder)
    expect([code, out]).toEqual([1, ""])
    expect(err.trim().replace(/^vmpl-lab: the run failed: /, "")).toMatch(says)
  })
})

describe("help and version: exit code 0, nothing on standard error", () => {
  it.concurrent.each([
    ["--version", /^\d+\.\d+\.\d+\n$/],
    ["--help", /compare .*\n.*report .*\n.*sweep .*\n.*merge .*\n[\s\S]*measure /],
    ["compare --help", /--breakdown/],
    ["compare --help", /--intervals/],
    ["sensitivity --help", /--operation[\s\S]*--strategy/],
    ["break-even --help", /--primitive[\s\S]*--bound/],
    ["validate --help", /--profile/],
    ["profile derive --help", /--clock-ghz[\s\S]*--mitigations/],
    ["live measure --help", /--device[\s\S]*--rounds[\s\S]*--output/],
    ["measure --help", /--output-format/],
    ["replay --help", /FILE .*standard input[\s\S]*--explain/],
    ["layout --help", /vmsa, vmcb, ghcb, rmp, rmpread, secrets, cpuid[\s\S]*--json/]
  ])("vmpl-lab %s", async (args, says) => {
    const { code, out, err } = await shell(args.split(" "))
    expect({ code, err }).toEqual({ code: 0, err: "" })
    expect(out).toMatch(says)
  })
})

describe("analysis", () => {
  const quick = ["--calls", "2", "--vcpus", "1", "--draws", "1", "--json"]

  it.concurrent("sensitivity prints one object, the same each time", async () => {
    const run = async () => {
      const { code, out, err } = await shell(["sensitivity", "--strategy", "multi-vmpl-vcpu,vm-per-vmpl", ...quick])
      expect({ code, err }).toEqual({ code: 0, err: "" })
      const { wall, ...json } = JSON.parse(out)
      expect(wall.totalMs).toBeGreaterThan(0)
      return json
    }
    const json = await run()
    expect(await run()).toEqual(json)
    expect(Object.keys(json)).toEqual([
      ...["seed", "commit", "profile", "machine", "scenario", "parameters", "draws", "operation", "statistic"],
      ...["baseline", "knobs", "withoutEffect", "pairs", "reversals"]
    ])
    expect(json.parameters).toMatchObject({ calls: 2, vcpus: 1, boots: 1 })
    expect(json.baseline[0].strategy).toBe("multi-vmpl-vcpu")
    expect(json.knobs.find((one: { knob: string }) => one.knob === "vmcb_swap_fields")).toMatchObject({
      kind: "primitive",
      low: 20,
      high: 300,
      taken: true,
      effects: expect.arrayContaining([expect.objectContaining({ strategy: "multi-vmpl-vcpu", lowDetected: true })])
    })
  })

  it.concurrent("break-even answers for each set of primitives", async () => {
    const args = ["--a", "vcpu-per-vmpl/vmm-threads", "--primitive", "ioctl", "--primitive", "ioctl,vmm_dispatch"]
    const { code, out, err } = await shell(["break-even", ...args, "--b", "multi-vmpl-vcpu", ...quick])
    expect({ code, err }).toEqual({ code: 0, err: "" })
    const { results } = JSON.parse(out)
    expect(results.map(({ primitives }: { primitives: unknown }) => primitives)).toEqual([
      ["ioctl"],
      ["ioctl", "vmm_dispatch"]
    ])
    expect(Object.keys(results[0])).toEqual([
      ...["a", "b", "primitives", "answer", "nowNs", "gapNowNs", "floorNs", "boundNs"],
      ...["crossings", "best", "noiseNs", "monotone", "trials"]
    ])
  })

  it.concurrent("a derived profile can be used like any other", async () => {
    const derived = join(folder, "derived.json")
    const made = await shell(["profile", "derive", "--clock-ghz", "2.8", "--mitigations", "0.9", "-o", derived])
    expect(made).toEqual({ code: 0, out: "", err: "" })
    const { code, out } = await shell(["validate", "--profile", derived, "--json"])
    expect(code).toBe(0)
    const { profile, rows } = JSON.parse(out)
    expect(profile).toBe("epyc-9654p-derived")
    const of = (id: string) => rows.find((row: { id: string }) => row.id === id)
    expect(of("verismo-rmp-sweep-4k-derived")).toMatchObject({ predicted: 737, clockMhz: null })
    // Back at the clock of the published row, with the other mitigations: (900 + 900) * 0.9 + 1165, rounded on the way.
    expect(of("sigm-snpx-hypercall").predicted).toBeCloseTo(2_785, -1)
    expect(of("sigm-snpx-hypercall").clockMhz).toBe(2_400)
  })
})
