import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { type Action, actionText, configText, TraceReplay } from "@vmpl-lab/lab"
import { resolveSwitches } from "@vmpl-lab/rmp"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"

const launcher = fileURLToPath(new URL("../../packages/lab/bin/vmpl-lab.js", import.meta.url))
const PAGES = 65_536
const CONFIG = configText({ pages: PAGES, basePfn: 0, vmpls: 4, switches: resolveSwitches() })

/** A guest page's life, then a look at it, over all pages again and again. */
const actionOf = (index: number): Action => {
  const pfn = (Math.floor(index / 5) * 7919) % PAGES
  const at = { asid: 1, vmpl: 0, gfn: pfn, npt: { pfn, size: 0 } } as const
  switch (index % 5) {
    case 0:
      return { op: "rmpupdate", pfn, assigned: true, size: 0, immutable: false, gfn: pfn, asid: 1 }
    case 1:
      return { op: "pvalidate", ...at, size: 0, validate: true }
    case 2:
      return { op: "rmpadjust", ...at, size: 0, targetVmpl: 1, mask: 3, vmsa: false }
    case 3:
      return { op: "access", by: "guest", kind: 1, ...at, vmpl: 1, cpl: 0, cbit: true }
    default:
      return { op: "rmpread", pfn }
  }
}

const traceText = (actions: number, last = ""): string =>
  [CONFIG, ...Array.from({ length: actions }, (_, index) => actionText(actionOf(index))), last].join("\n")

let folder = ""
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "vmpl-lab-replay-"))
})
afterAll(() => rmSync(folder, { recursive: true }))

const fileWith = (name: string, text: string): string => {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

/** What the replay in this process makes of a text. */
const replayed = (text: string): string => {
  const trace = new TraceReplay()
  return trace.feed(new TextEncoder().encode(text)).out + trace.end().out
}

describe("vmpl-lab replay", () => {
  const text = traceText(3000)

  it("gives the replies to a file, one line each, and nothing else", async () => {
    const outcome = await vmplLab(["replay", fileWith("whole.jsonl", text)])
    expect(outcome).toEqual({ code: 0, out: replayed(text), err: "" })
    expect(outcome.out.trimEnd().split("\n")).toHaveLength(3001)
  })

  it("reads standard input as it reads a file", async () => {
    expect(await vmplLab(["replay", "-"], text)).toEqual({ code: 0, out: replayed(text), err: "" })
  })

  it("prints the replies to the lines before a bad one, then one line on standard error", async () => {
    const good = traceText(3000)
    const bad = `${good}{"op":"entry","spa":"0x1000","asid":1}\n${DIGEST}\n`
    const { code, out, err } = await vmplLab(["replay", fileWith("bad.jsonl", bad)])
    expect({ code, out }).toEqual({ code: 2, out: replayed(good) })
    expect(err).toMatch(/^vmpl-lab: \S+bad\.jsonl: line 3002: asid: unknown key, expected only op, spa\n$/)
  })

  it("says of standard input what is wrong with it", async () => {
    const { code, out, err } = await vmplLab(["replay", "-"], `${CONFIG}\n{"op":"psmash","spa":12}\n`)
    expect({ code, lines: out.split("\n").length }).toEqual({ code: 2, lines: 2 })
    expect(err).toMatch(/^vmpl-lab: standard input: line 2: spa: got 12, expected a 4 KiB aligned address [^\n]+\n$/)
  })

  it("says so when standard input is empty", async () => {
    const { code, out, err } = await vmplLab(["replay", "-"])
    expect({ code, out }).toEqual({ code: 2, out: "" })
    expect(err).toMatch(/^vmpl-lab: standard input: line 1: config: missing, expected [^\n]+\n$/)
  })

  it("replies to the example of docs/replay.md as the page says", async () => {
    const page = readFileSync(new URL("../../docs/replay.md", import.meta.url), "utf8")
    const [input, output] = [...page.matchAll(/^```json\n([\s\S]*?)^```$/gm)].map((block) => block[1]!)
    expect(await vmplLab(["replay", "-"], input)).toEqual({ code: 0, out: output, err: "" })
  })

  it("explains each reply", async () => {
    const { code, out, err } = await vmplLab(["replay", "--explain", "-"], traceText(5, DIGEST))
    expect({ code, err }).toEqual({ code: 0, err: "" })
    const replies = out.trimEnd().split("\n")
    const bare = replayed(traceText(5, DIGEST)).trimEnd().split("\n")
    for (const [index, reply] of replies.entries()) {
      const { explain, ...rest } = JSON.parse(reply)
      expect(JSON.stringify(rest)).toBe(bare[index])
      if (index === 0 || index === 6) expect(explain).toBe(null)
      else expect([typeof explain.rule, typeof explain.source]).toEqual(["string", "string"])
    }
    expect(replies).toHaveLength(7)
  })

  it("is done when its reader goes away", async () => {
    const path = fileWith("long.jsonl", traceText(200_000))
    const child = spawn(process.execPath, [launcher, "replay", path])
    let err = ""
    child.stderr.on("data", (chunk) => {
      err += chunk
    })
    child.stdout.once("data", () => child.stdout.destroy())
    const code = await new Promise((resolve) => child.on("close", resolve))
    expect({ code, err }).toEqual({ code: 0, err: "" })
  })
})

const DIGEST = '{"op":"digest"}'

describe("a trace of a million lines", () => {
  const LINES = 1_000_000

  it("is replayed in a heap of 64 MiB, from a file and from standard input", async () => {
    const path = join(folder, "million.jsonl")
    const expected = createHash("sha256")
    const trace = new TraceReplay()
    const file = openSync(path, "w")
    const write = (chunk: string): void => {
      writeSync(file, chunk)
      expected.update(trace.feed(new TextEncoder().encode(chunk)).out)
    }
    write(`${CONFIG}\n`)
    for (let from = 0; from < LINES - 1; from += 10_000) {
      const count = Math.min(10_000, LINES - 1 - from)
      write(Array.from({ length: count }, (_, index) => `${actionText(actionOf(from + index))}\n`).join(""))
    }
    closeSync(file)
    const digest = expected.digest("hex")

    for (const [args, stdin] of [
      [["replay", path], "ignore"],
      [["replay", "-"], openSync(path, "r")]
    ] as const) {
      const child = spawn(process.execPath, [launcher, ...args], {
        env: { ...process.env, NODE_OPTIONS: "--max-old-space-size=64" },
        stdio: [stdin, "pipe", "inherit"]
      })
      const got = createHash("sha256")
      let lines = 0
      child.stdout!.on("data", (chunk: Buffer) => {
        got.update(chunk)
        for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) lines++
      })
      const code = await new Promise((resolve) => child.on("close", resolve))
      expect({ code, lines, digest: got.digest("hex") }).toEqual({ code: 0, lines: LINES, digest })
      if (typeof stdin === "number") closeSync(stdin)
    }
  }, 180_000)
})
