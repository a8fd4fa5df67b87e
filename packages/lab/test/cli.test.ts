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
  writeFileSync(join(folder, "bad-scenario.json"), '{"name": "a",\n')
})
afterAll(() => rmSync(folder, { recursive: true }))

describe("bad usage and bad input: exit code 2, one line on standard error, nothing on standard output", () => {
  const cases: ReadonlyArray<readonly [args: string, says: RegExp]> = [
    ["", /^no command given, expected compare, sweep, merge, measure, replay, scenarios, explore, trace or layout/],
    [
      "compile",
      /^"compile": unknown command, expected compare, sweep, merge, measure, replay, scenarios, explore, trace or layout/
    ],
    ["--fast", /^--fast: unknown option/],
    ["compare --fast", /^--fast: unknown option/],
    ["compare --vcpu 3", /^--vcpu: unknown option, did you mean --vcpus\?/],
    ["compare extra", /^"extra": unexpected argument/],
    [
      "compare --strategy best",
      /^--strategy: "best" unknown, expected one of multi-vmpl-vcpu, vcpu-per-vmpl, vm-per-vmpl/
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
    ["compare --replications 5", /^--replications: expected 0 or a whole number from 6 to 1000, got 5$/],
    ["compare --seed 9007199254740991", /^--seed: expected at most 9007199254740981 with 10 replications, got /],
    ["compare --replications 1001", /^--replications: expected a whole number from 0 to 1000, got "1001"$/],
    ["compare --baseline best", /^--baseline: "best" not among the strategies run, expected one of multi-vmpl-vcpu, /],
    [
      "compare --strategy multi-vmpl-vcpu --baseline vm-per-vmpl/vmm-threads",
      /^--baseline: "vm-per-vmpl\/vmm-threads" not among the strategies run, expected one of multi-vmpl-vcpu$/
    ],
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

describe("help and version: exit code 0, nothing on standard error", () => {
  it.concurrent.each([
    ["--version", /^\d+\.\d+\.\d+\n$/],
    ["--help", /compare .*\n.*sweep .*\n.*merge .*\n.*measure /],
    ["compare --help", /--breakdown/],
    ["measure --help", /--output-format/],
    ["replay --help", /FILE .*standard input[\s\S]*--explain/],
    ["layout --help", /vmsa, vmcb, ghcb, rmp, rmpread, secrets, cpuid[\s\S]*--json/]
  ])("vmpl-lab %s", async (args, says) => {
    const { code, out, err } = await shell(args.split(" "))
    expect({ code, err }).toEqual({ code: 0, err: "" })
    expect(out).toMatch(says)
  })
})
