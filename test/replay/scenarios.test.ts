// @section 5
import { readdirSync, readFileSync } from "node:fs"
import { playScenario, TraceReplay, type TraceScenario } from "@vmpl-lab/lab"
import { describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"

const root = new URL("../../scenarios/", import.meta.url)
const all = JSON.parse(readFileSync(new URL("index.json", root), "utf8")) as ReadonlyArray<TraceScenario>
const trace = (id: string): Uint8Array => readFileSync(new URL(`${id}.jsonl`, root))

/** The rows that memory, RMP and VMPL operations can express. */
const ROWS = "I1 I2 I3 I4 I5 I6 D1 D2 S1 S2 S3 S4 V1 V2 V3 V4 V5 V6 M1 M2 M3 C1 F1".split(" ")

/** Whether the machine refused something in a reply. */
const refuses = (reply: object): boolean =>
  "fault" in reply ||
  "exit" in reply ||
  ("eax" in reply && reply.eax !== 0) ||
  ("status" in reply && reply.status !== "SUCCESS")

describe("scenarios", () => {
  it("are all there, each with its trace", () => {
    expect(all.map(({ id }) => id).filter((id) => !id.includes("-"))).toEqual(ROWS)
    const files = readdirSync(root).filter((name) => name.endsWith(".jsonl"))
    expect(files.sort()).toEqual(all.map(({ id }) => `${id}.jsonl`).sort())
  })

  it.each(all.map((one) => [one.id, one] as const))("%s ends as it says", (id, scenario) => {
    const steps = playScenario(scenario, trace(id))
    for (const { who, what, actual, reply } of steps) expect(actual, `${who}: ${what}`).toEqual(reply)
    if (scenario.outcome === "stopped" && id !== "C1-defence" && id !== "V5-defence")
      expect(steps.some(({ actual }) => refuses(actual))).toBe(true)
  })

  it.each(all.filter(({ outcome }) => outcome === "succeeds").map(({ id }) => id))(
    "%s succeeds, and the software defence against it stands beside it",
    (id) => {
      const defence = all.find((one) => one.id === `${id}-defence`)
      expect(defence?.outcome).toBe("stopped")
      const last = (one: TraceScenario | undefined) => one?.steps.at(-1)?.reply
      // D1 and V6 differ in what happened before the last step.
      if (id !== "V6" && id !== "D1") expect(last(defence)).not.toEqual(last(all.find((one) => one.id === id)))
    }
  )

  it("need the operations on memory only where they say so", () => {
    for (const { id, memory } of all) {
      const { error } = new TraceReplay().feed(trace(id))
      if (memory === true) expect(error, id).toMatch(/: op: got "|op:/)
      else expect(error, id).toBeNull()
    }
  })

  it("say when they do not end so", () => {
    const scenario = all.find(({ id }) => id === "I1")!
    const wrong = { ...scenario, steps: scenario.steps.map((step) => ({ ...step, reply: { ok: true } as const })) }
    expect(playScenario(wrong, trace("I1")).map(({ asExpected }) => asExpected)).toEqual([false, false, false])
  })
})

describe("vmpl-lab scenarios", () => {
  it("lists them, plays one, and names what it does not know", async () => {
    const list = await vmplLab(["scenarios", "--json"])
    expect(list.code).toBe(0)
    expect(JSON.parse(list.out).map((one: { id: string }) => one.id)).toEqual(all.map(({ id }) => id))
    const table = await vmplLab(["scenarios"])
    expect(table.out).toContain("Stale TLB")
    const one = await vmplLab(["scenarios", "v1"])
    expect([one.code, one.out.split("\n")[0]]).toEqual([0, "V1  VMPL write: stopped"])
    expect(one.out).toContain('{"fault":"#NPF","bits":["RMP","VMPL"]}  [VMPL; APM2 15.36.7 table 15-36]')
    const wrong = await vmplLab(["scenarios", "I9"])
    expect([wrong.code, wrong.out]).toEqual([2, ""])
    expect(wrong.err).toMatch(/^vmpl-lab: "I9": unknown scenario, expected one of I1, /)
  })
})

describe("vmpl-lab explore", () => {
  it("prints an attack as a trace that replay takes", async () => {
    const attack = await vmplLab(["explore", "--without", "VMPL"])
    expect([attack.code, attack.err]).toEqual([
      0,
      "vmpl-lab: without VMPL: not so: VMPL1 reaches only what VMPL0 has granted it; found after 164 states\n"
    ])
    const { out, error } = new TraceReplay().feed(new TextEncoder().encode(attack.out))
    expect([error, out.trim().split("\n").at(-1)]).toEqual([null, '{"fault":"#NPF","bits":["RMP","VMPL"]}'])
    const wrong = await vmplLab(["explore", "--without", "nothing"])
    expect([wrong.code, wrong.out]).toEqual([2, ""])
    const json = await vmplLab(["explore", "--without", "VMPL", "--json"])
    expect(Object.keys(JSON.parse(json.out))).toEqual([
      "states",
      "transitions",
      "depth",
      "without",
      "violated",
      "trace",
      "wall"
    ])
  })
})
