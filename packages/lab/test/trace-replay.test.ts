import { SWITCH_IDS } from "@vmpl-lab/rmp"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type Action, actionText, configText, type Explainer, TraceReplay } from "../src/index.ts"
import { anyAction, anySwitches, SMALL } from "./actions.ts"

const CONFIG = '{"config":{"pages":1024,"base":"0x0","vmpls":4}}'
const UPDATE = '{"op":"rmpupdate","spa":"0x5000","assigned":true,"size":"4K","immutable":false,"gpa":"0x1000","asid":1}'
const READ = '{"op":"rmpread","spa":"0x5000"}'
const DIGEST = '{"op":"digest"}'

const replay = (bytes: Uint8Array | string, cuts: ReadonlyArray<number> = [], explainer?: Explainer) => {
  const all = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes
  const trace = new TraceReplay(explainer === undefined ? {} : { explainer })
  let out = ""
  const ends = [...cuts, all.length].toSorted((a, b) => a - b)
  let from = 0
  for (const to of ends) {
    const replayed = trace.feed(all.subarray(from, to))
    out += replayed.out
    if (replayed.error !== null) return { out, error: replayed.error }
    from = to
  }
  const last = trace.end()
  return { out: out + last.out, error: last.error }
}

const defaults = `{"ok":true,"switches":{${SWITCH_IDS.map((id) => `"${id}":"default"`).join(",")}}}`

describe("the reply to the configuration", () => {
  it("spells out every switch, U1 to U18 in order", () => {
    expect(SWITCH_IDS).toEqual(Array.from({ length: 18 }, (_, index) => `U${index + 1}`))
    expect(replay(CONFIG)).toEqual({ out: `${defaults}\n`, error: null })
    const given = CONFIG.replace("4}}", '4,"switches":{"U9":"alternative","U2":"alternative"}}}')
    const expected = defaults
      .replace('"U2":"default"', '"U2":"alternative"')
      .replace('"U9":"default"', '"U9":"alternative"')
    expect(replay(given)).toEqual({ out: `${expected}\n`, error: null })
  })
})

describe("lines", () => {
  const plain = replay(`${CONFIG}\n${UPDATE}\n${READ}\n`)

  it("have one reply each", () => {
    expect(plain.error).toBe(null)
    expect(plain.out.split("\n")).toHaveLength(4)
  })

  it.each([
    ["no line feed at the end", `${CONFIG}\n${UPDATE}\n${READ}`],
    ["CRLF", `${CONFIG}\r\n${UPDATE}\r\n${READ}\r\n`],
    ["a byte-order mark", `\ufeff${CONFIG}\n${UPDATE}\n${READ}\n`],
    ["blank lines", `\n \t\n${CONFIG}\n\r\n${UPDATE}\n\n\n  ${READ}  \n \n`],
    ["keys in another order", `${CONFIG}\n${UPDATE}\n{"spa" : "0x5000" , "op":"rmpread"}\n`],
    ["escapes", `${CONFIG}\n${UPDATE}\n{"\\u006fp":"rmp\\u0072ead","spa":"0x5000"}\n`]
  ])("are the same with %s", (_, text) => {
    expect(replay(text)).toEqual(plain)
  })

  it("give the same replies wherever the chunks are cut", () => {
    const trace = fc.tuple(anySwitches, fc.array(anyAction(SMALL), { maxLength: 60 }))
    fc.assert(
      fc.property(trace, fc.array(fc.nat(), { maxLength: 20 }), ([switches, actions], cuts) => {
        const config = configText({ pages: 1024, basePfn: 0, vmpls: 4, switches })
        const text = [config, ...actions.map(actionText)].join("\n")
        const whole = replay(text)
        expect(whole.error).toBe(null)
        expect(whole.out.split("\n")).toHaveLength(actions.length + 2)
        expect(
          replay(
            text,
            cuts.map((cut) => cut % (text.length + 1))
          )
        ).toEqual(whole)
      }),
      { seed: 20261121, numRuns: 100 }
    )
  })

  it("give the same replies and the same error byte by byte, cut inside characters", () => {
    const bytes = new TextEncoder().encode(`\ufeff${CONFIG}\r\n${UPDATE}\n{"op":"digest","ключ":1}\n`)
    const whole = replay(bytes)
    expect(whole.error).toBe("line 3: ключ: unknown key, expected only op")
    expect(
      replay(
        bytes,
        Array.from(bytes, (_, at) => at)
      )
    ).toEqual(whole)
  })
})

describe("a trace that ends inside a character", () => {
  it("does not lose its last bytes", () => {
    const bytes = new TextEncoder().encode(`${CONFIG}\n\u043a`).slice(0, -1)
    expect(replay(bytes).error).toMatch(/^line 2: not valid JSON /)
  })
})

describe("a line that cannot be accepted", () => {
  const before = replay(`${CONFIG}\n${UPDATE}\n`).out
  const cases: ReadonlyArray<readonly [what: string, line: string, error: RegExp]> = [
    ["a missing key", '{"op":"psmash"}', /^spa: missing, expected a 4 KiB aligned address/],
    ["an unknown key", '{"op":"digest","all":true}', /^all: unknown key, expected only op$/],
    ["a wrong value", '{"op":"psmash","spa":"0x1"}', /^spa: got "0x1", expected a 4 KiB aligned address/],
    ["a key given twice", '{"op":"psmash","spa":"0x0","spa":"0x1000"}', /^spa: given twice, expected once$/],
    ["an operation given twice", '{"op":"digest","op":"digest"}', /^op: given twice, expected once$/],
    [
      "a nested key given twice",
      '{"op":"rmpquery","asid":1,"vmpl":0,"gpa":"0x0","npt":{"spa":"0x0","size":"4K","size":"4K"},"targetVmpl":1}',
      /^npt\.size: given twice, expected once$/
    ],
    ["a key given twice, once escaped", '{"op":"psmash","spa":"0x0","\\u0073pa":"0x0"}', /^spa: given twice, /],
    ["a key given twice with a colon in it", '{"op":"psmash","spa":"a:b","spa":"0x0"}', /^spa: given twice, /],
    ["no JSON", '{"op":"digest"', /^not valid JSON \(.+\), expected one JSON object$/],
    ["two objects", `${DIGEST}${DIGEST}`, /^not valid JSON \(.+\), expected one JSON object$/],
    ["a comment", "# comment", /^not valid JSON \(.+\), expected one JSON object$/],
    ["a blank that is none of JSON's", "\u00a0", /^not valid JSON/],
    ["an array", `[${DIGEST}]`, /^got \[.+\], expected a JSON object$/],
    ["null", "null", /^got null, expected a JSON object$/],
    ["a second configuration", CONFIG, /^config: given again, expected it on the first line only$/],
    ["an array nested deep", "[".repeat(100_000), /^not valid JSON/],
    ["an object nested deep", `{"op":"psmash","spa":${"[".repeat(9000)}${"]".repeat(9000)}}`, /^spa: got /]
  ]
  it.each(cases)("%s: the replies before it, and its number", (_, line, error) => {
    const { out, error: got } = replay(`${CONFIG}\n${UPDATE}\n\n${line}\n${DIGEST}\n`)
    expect(out).toBe(before)
    expect(got).toMatch(/^line 4: /)
    expect(got!.slice("line 4: ".length)).toMatch(error)
  })

  it("is named by its number among all lines, blank ones too, at the end of the file too", () => {
    expect(replay(`\n\n${CONFIG}\n\n\n${UPDATE}\n{}`).error).toMatch(/^line 7: op: missing, expected /)
    expect(replay(`{}`).error).toMatch(/^line 1: config: missing, expected /)
    expect(replay(`\n{"config":1}`).error).toMatch(/^line 2: config: got 1, expected /)
    expect(replay(`\n${CONFIG.replace("{", '{"config":1,')}`).error).toBe("line 2: config: given twice, expected once")
  })

  it.each([
    ["", 1],
    ["\n", 1],
    ["\r\n \n\n", 3]
  ])("is missing in %j: no configuration", (text, line) => {
    const { out, error } = replay(text)
    expect(out).toBe("")
    expect(error).toMatch(new RegExp(`^line ${line}: config: missing, expected .* on the first line$`))
  })

  it("is too long from 1 MiB on, also without an end", () => {
    const padded = (length: number) => DIGEST.padEnd(length, " ")
    const trace = (line: string) => `${CONFIG}\n${line}\n${DIGEST}\n`
    expect(replay(trace(padded(1 << 20))).error).toBe(null)
    const tooLong = "line 2: too long, expected at most 1048576 characters"
    expect(replay(trace(padded((1 << 20) + 1)))).toEqual({ out: `${defaults}\n`, error: tooLong })
    const endless = new TraceReplay()
    endless.feed(new TextEncoder().encode(`${CONFIG}\n`))
    const chunk = new Uint8Array(1 << 16).fill(0x20)
    for (let i = 0; i < 16; i++) expect(endless.feed(chunk).error).toBe(null)
    expect(endless.feed(chunk).error).toBe(tooLong)
  })
})

describe("explained replies", () => {
  it("carry the rule as their last key, asked for before the action is done", () => {
    const asked: Array<readonly [Action["op"], boolean]> = []
    const explainer: Explainer = (action, machine) => {
      asked.push([action.op, machine.rmp.entry(5).assigned])
      if (action.op === "digest") return null
      return action.op === "rmpread"
        ? { rule: "stored entry", source: "APM2 15.36.5", switches: ["U18"] }
        : { rule: "success", source: "APM3 RMPUPDATE" }
    }
    const text = `${CONFIG}\n${UPDATE}\n${READ}\n${DIGEST}\n`
    const explained = replay(text, [], explainer).out.trimEnd().split("\n")
    const bare = replay(text).out.trimEnd().split("\n")
    const extra = [
      "null",
      '{"rule":"success","source":"APM3 RMPUPDATE"}',
      '{"rule":"stored entry","source":"APM2 15.36.5","switches":["U18"]}',
      "null"
    ]
    expect(explained).toEqual(bare.map((line, index) => `${line.slice(0, -1)},"explain":${extra[index]}}`))
    expect(asked).toEqual([
      ["rmpupdate", false],
      ["rmpread", true],
      ["digest", true]
    ])
  })
})
