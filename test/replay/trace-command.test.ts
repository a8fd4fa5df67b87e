/** `vmpl-lab trace` as a user runs it. */
import { describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"

/** Thread-pid, CPU, seconds, event, text. */
const LINE = /^ {0,15}[\w.-]+-\d{4} +\[\d{3}\] +\d+\.(\d{6}|\d{9}): kvm_\w+: +\S.*$/

describe("vmpl-lab trace", () => {
  it("prints lines as trace-cmd report does", async () => {
    const { code, out, err } = await vmplLab(["trace", "--calls", "1"])
    expect([code, err]).toEqual([0, ""])
    const [cpus, ...lines] = out.trimEnd().split("\n")
    expect(cpus).toBe("cpus=96")
    expect(lines.length).toBeGreaterThan(100)
    expect(lines.filter((line) => !LINE.test(line))).toEqual([])
    expect(lines.some((line) => line.includes("exit_reason 80000018, exit_info1 0, exit_info2 0"))).toBe(true)
  })

  it("filters by event and text", async () => {
    const filter = "kvm_vmgexit_enter:80000004"
    const { out } = await vmplLab(["trace", "--guest", "ap-jump-table", "--vcpus", "3", "--filter", filter])
    const lines = out.trimEnd().split("\n").slice(1)
    expect(lines.length).toBe(2)
    for (const line of lines)
      expect(line).toMatch(/kvm_vmgexit_enter: +vcpu [12], exit_reason 80000004, exit_info1 0, /)
  })

  it("prints one object per line for programs, in nanoseconds", async () => {
    const { out } = await vmplLab([
      "trace",
      "--guest",
      "init-sipi",
      "--vcpus",
      "2",
      "--json",
      "--filter",
      "kvm_apic_ipi"
    ])
    const objects = out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line))
    expect(objects.map(({ event, text }) => `${event} ${text}`)).toEqual([
      "kvm_apic_ipi dst 0 vec 0 (INIT|physical|assert|edge|all-but-self)",
      "kvm_apic_ipi dst 0 vec 8 (SIPI|physical|assert|edge|all-but-self)"
    ])
    expect(Object.keys(objects[0])).toEqual(["thread", "cpu", "ns", "event", "text"])
  })

  it("is the same for equal seeds, and has nanoseconds with --full-time", async () => {
    const run = async (...more: ReadonlyArray<string>): Promise<string> =>
      (await vmplLab(["trace", "--guest", "ap-creation", "--vcpus", "2", ...more])).out
    expect(await run()).toBe(await run())
    expect((await run("--full-time")).split("\n")[1]).toMatch(/ \d+\.\d{9}: /)
  })

  it.each([
    [["--guest", "nope"], /^vmpl-lab: --guest: "nope" unknown, expected one of svsm-calls, init-sipi/],
    [["--strategy", "x"], /^vmpl-lab: --strategy: "x" unknown, expected one of multi-vmpl-vcpu/],
    [["--filter", "kvm_nope:x"], /^vmpl-lab: --filter: "kvm_nope:x" unknown, expected one of kvm_entry/],
    [["--vcpus", "513"], /^vmpl-lab: --vcpus: expected a whole number from 1 to 512/]
  ])("%o is bad usage: one line, exit code 2", async (options, message) => {
    const { code, out, err } = await vmplLab(["trace", ...options])
    expect([code, out]).toEqual([2, ""])
    expect(err).toMatch(message)
    expect(err.trimEnd().split("\n").length).toBe(1)
  })
})
