import { rmSync } from "node:fs"
import { join } from "node:path"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { loadPlan } from "../../src/sweep/GridFile.ts"
import { profileText } from "../fixture.ts"
import { newFolder, shell, write } from "./support.ts"

let folder = ""
beforeAll(() => {
  folder = newFolder()
  write(folder, "mine.json", profileText.replace('"name": "epyc-9654p"', '"name": "mine"'))
})
afterAll(() => rmSync(folder, { recursive: true }))

/** The plan of a grid, or the line that refuses it, without the folder. */
const plan = (grid: unknown, commit = "c") =>
  Effect.runPromise(
    loadPlan(join(folder, write(folder, "grid.json", grid)), commit, "1").pipe(
      Effect.mapError(({ line }) => new Error(line.replaceAll(`${folder}/`, ""))),
      Effect.provide(NodeServices.layer)
    )
  )

describe("bad grids: one line naming file, key, value and what was expected", () => {
  const cases: ReadonlyArray<readonly [grid: unknown, says: RegExp]> = [
    ["[1]", /^grid\.json: expected a grid: an object with a list of values for each parameter, got \[1\]$/],
    ['{"seed": 1, "seed": 2}', /^grid\.json: seed: key given twice/],
    [
      { vcpus: [1] },
      /^grid\.json: vcpus: unknown key with value \[1\], expected scenario, profile, strategy, seed, or a/
    ],
    [{ "scenario.": [1] }, /^grid\.json: scenario\.: unknown key/],
    [{ "scenario.__proto__.x": [1] }, /^grid\.json: scenario\.__proto__\.x: unknown key/],
    [
      { "scenario.vcpu": [3] },
      /^grid\.json: scenario\.vcpu: vcpu: unknown key with value 3, expected only the \d+ known keys$/
    ],
    [{ "scenario.vcpus": [1, 0] }, /^grid\.json: scenario\.vcpus: vcpus: expected .*, got 0$/],
    [{ "scenario.vcpus.x": [1] }, /^grid\.json: scenario\.vcpus\.x: vcpus: expected a number, got \{"x":1\}$/],
    [{ "scenario.vcpus": [] }, /^grid\.json: scenario\.vcpus: expected at least one value, got \[\]$/],
    [{ "scenario.vcpus": [1, 2, 1] }, /^grid\.json: scenario\.vcpus: value 1 given twice, expected once$/],
    [{ "host.placement": ["apart"] }, /^grid\.json: host\.placement: host\.placement: expected .*, got "apart"$/],
    [{ "host.core": [1] }, /^grid\.json: host\.core: host\.core: unknown key with value 1, expected only cores, /],
    [
      { "host.cores": [1], "scenario.host.cores": [2] },
      /^grid\.json: scenario\.host\.cores: addresses the same as host\.cores, expected one of them$/
    ],
    [
      { "scenario.host": [{}], "host.cores": [2] },
      /^grid\.json: host\.cores: addresses the same as scenario\.host, expected one of them$/
    ],
    [
      { "profile.exit.ns": [1] },
      /^grid\.json: profile\.exit\.ns: exit: unknown key with value \{"ns":1\}, expected only /
    ],
    [{ "profile.ioctl.n": [1] }, /^grid\.json: profile\.ioctl\.n: primitives\.ioctl\.n: unknown key with value 1/],
    [
      { "profile.ioctl.ns": [5, "6"] },
      /^grid\.json: profile\.ioctl\.ns: expected a whole number of nanoseconds from 0 to 1000000000, got "6"$/
    ],
    [
      { "profile.guest_pause.ns": [0] },
      /^grid\.json: profile\.guest_pause\.ns: primitives\.guest_pause\.ns: .* got 0$/
    ],
    [{ seed: [1, -1] }, /^grid\.json: seed: expected whole numbers from 0 to \d+, got -1$/],
    [{ strategy: ["best"] }, /^grid\.json: strategy: expected one or more of multi-vmpl-vcpu, .*, got "best"$/],
    [{ strategy: [] }, /^grid\.json: strategy: expected one or more of .*, got \[\]$/],
    [{ scenario: ["nothing"] }, /^grid\.json: scenario: "nothing" unknown, expected default or the path/],
    [{ profile: "nothing" }, /^grid\.json: profile: "nothing" unknown, expected epyc-9654p or the path/],
    [{ profile: [7] }, /^grid\.json: profile: expected a name or the path of a JSON file, got 7$/],
    [{ profile: "./missing.json" }, /^missing\.json: cannot be read: no such file$/],
    [
      {
        "scenario.mix.QUERY_PROTOCOL": [0, 1],
        "scenario.mix.PVALIDATE": [0, 1],
        "scenario.mix.REMAP_CA": [0, 1]
      },
      /^grid\.json: at scenario\.mix\.QUERY_PROTOCOL 0, .*: mix: expected at least one weight above 0, got/
    ],
    [
      {
        seed: Array.from({ length: 1_001 }, (_, i) => i),
        "scenario.vcpus": Array.from({ length: 100 }, (_, i) => i + 1)
      },
      /^grid\.json: 100100 points, expected at most 100000$/
    ]
  ]
  it.each(cases)("%j", async (grid, says) => {
    await expect(plan(grid)).rejects.toThrow(says)
  })

  it("on the command line: exit code 2, nothing on standard output", async () => {
    write(folder, "bad.json", { "scenario.vcpus": [0] })
    const cases = [
      ["sweep", /^GRID: missing/],
      ["sweep bad.json", /^--output: missing, expected this option, or --dry-run/],
      ["sweep bad.json --dry-run", /^bad\.json: scenario\.vcpus: /],
      ["sweep bad.json -o out.jsonl --jobs 0", /^--jobs: expected a whole number from 1 to 1024, got "0"/],
      ["sweep bad.json --dry-run --shard 3/2", /^--shard: expected I\/N .* got "3\/2"/],
      ["sweep bad.json --dry-run --shard 0/2", /^--shard: .* got "0\/2"/],
      ["merge missing.jsonl -o out.jsonl", /^missing\.jsonl: .*no such file/],
      ["merge -o out.jsonl", /^RESULTS: /],
      ["merge a.jsonl", /^--output: missing/]
    ] as const
    for (const [line, says] of cases) {
      const { code, out, err } = await shell(line, folder)
      expect({ line, code, out }).toEqual({ line, code: 2, out: "" })
      expect(err).toMatch(/^vmpl-lab: [^\n]+\n$/)
      expect(err.replace("vmpl-lab: ", "")).toMatch(says)
    }
  })
})

describe("the points of a grid", () => {
  it("are every combination, the last key fastest", async () => {
    const { points, at } = await plan({ "scenario.vcpus": [1, 4], seed: [7, 8, 9] })
    expect(points).toBe(6)
    const all = Array.from({ length: points }, (_, i) => at(i))
    expect(all.map(({ scenario, seed }) => [scenario.vcpus, seed])).toEqual(
      [1, 4].flatMap((vcpus) => [7, 8, 9].map((seed) => [vcpus, seed]))
    )
  })

  it("take scenarios and profiles as values too, from beside the grid", async () => {
    const { points, at } = await plan({ profile: ["epyc-9654p", "./mine.json"], "profile.ioctl.ns": [100, 200] })
    const all = Array.from({ length: points }, (_, i) => at(i).profile)
    expect(all.map(({ name, primitives }) => [name, primitives.ioctl.ns])).toEqual([
      ["epyc-9654p", 100],
      ["epyc-9654p", 200],
      ["mine", 100],
      ["mine", 200]
    ])
  })

  it("keep a profile whole when a price moves: spread, range and sums go with it", async () => {
    const { at } = await plan({
      "profile.thread_handoff_cross_core.ns": 8506,
      "profile.kvm_dispatch.ns": 1_000,
      "profile.ioctl.basis": "published"
    })
    const { primitives, sums } = at(0).profile
    const { ns, quantiles } = primitives.thread_handoff_cross_core
    expect([ns, quantiles!.at(0), quantiles!.at(-1)]).toEqual([8506, [0, 5000], [1000, 16000]])
    expect(sums.find(({ primitives: parts }) => parts.includes("kvm_dispatch"))!.ns).toBe(2965 - 165)
    expect(primitives.ioctl.basis).toBe("published")
  })

  it("are told apart by everything that results depend on, and by nothing else", async () => {
    const id = async (grid: object, commit = "c") => (await plan(grid, commit)).at(0).id
    const grids = [
      {},
      { seed: 2 },
      { strategy: "multi-vmpl-vcpu" },
      { "scenario.calls": 3 },
      { "profile.ioctl.ns": 1 },
      { profile: "./mine.json" }
    ]
    const ids: Array<string> = []
    for (const grid of grids) ids.push(await id(grid))
    expect(new Set([...ids, await id({}, "d")]).size).toBe(ids.length + 1)
    expect(await id({ seed: [1, 2], "scenario.calls": [1_000] })).toBe(ids[0])
  })
})
