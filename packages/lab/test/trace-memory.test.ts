import { describe, expect, it } from "vitest"
import { TraceReplay } from "../src/index.ts"

const CONFIG = '{"config":{"pages":512,"base":"0x0","vmpls":4}}'
const GIVE = '{"op":"rmpupdate","spa":"0x5000","assigned":true,"size":"4K","immutable":false,"gpa":"0x1000","asid":1}'
const AT = '"by":"guest","asid":1,"vmpl":0,"gpa":"0x1000","npt":{"spa":"0x5000","size":"4K"},"cpl":0'
const VALIDATE =
  '{"op":"pvalidate","asid":1,"vmpl":0,"gpa":"0x1000","npt":{"spa":"0x5000","size":"4K"},"size":"4K","validate":true}'

const replay = (...lines: ReadonlyArray<string>) => {
  const { out, error } = new TraceReplay({ memory: true }).feed(
    new TextEncoder().encode(`${[CONFIG, ...lines].join("\n")}\n`)
  )
  return {
    replies: out
      .trim()
      .split("\n")
      .slice(1)
      .map((line) => JSON.parse(line)),
    error
  }
}

describe("contents of memory in a trace", () => {
  it("private contents are ciphertext to the host, and garbage to another place and another guest", () => {
    const { replies, error } = replay(
      GIVE,
      VALIDATE,
      `{"op":"store",${AT},"cbit":true,"data":"0123456789abcdef"}`,
      `{"op":"load",${AT},"cbit":true,"bytes":8}`,
      '{"op":"load","by":"host","spa":"0x5000","bytes":8}',
      '{"op":"save","spa":"0x5000","name":"copy"}',
      '{"op":"restore","spa":"0x6000","name":"copy"}',
      '{"op":"rmpupdate","spa":"0x6000","assigned":true,"size":"4K","immutable":false,"gpa":"0x2000","asid":1}',
      VALIDATE.replaceAll("0x1000", "0x2000").replaceAll("0x5000", "0x6000"),
      `{"op":"load",${AT.replaceAll("0x1000", "0x2000").replaceAll("0x5000", "0x6000")},"cbit":true,"bytes":8}`
    )
    expect(error).toBeNull()
    expect(replies[3]).toEqual({ ok: true, data: "0123456789abcdef" })
    for (const at of [4, 9]) {
      expect(replies[at].ok).toBe(true)
      expect(replies[at].data).not.toBe("0123456789abcdef")
    }
  })

  it("shared contents are the host's too", () => {
    const { replies } = replay(
      `{"op":"store",${AT},"cbit":false,"data":"aa55"}`,
      '{"op":"load","by":"host","spa":"0x5000","bytes":2}',
      `{"op":"clear",${AT},"cbit":false}`,
      '{"op":"load","by":"host","spa":"0x5000","bytes":2}'
    )
    expect(replies.map(({ data }) => data)).toEqual([undefined, "aa55", undefined, "0000"])
  })

  it("faults as accesses do", () => {
    const { replies } = replay(
      GIVE,
      `{"op":"load",${AT},"cbit":true,"bytes":1}`,
      '{"op":"store","by":"host","spa":"0x5000","data":"00"}'
    )
    expect(replies.slice(1)).toEqual([
      { fault: "#VC", error: "0x404" },
      { fault: "#PF", bits: ["RMP"] }
    ])
  })

  it("false faults end when the page is in use no longer, and when they are switched off", () => {
    const { replies } = replay(
      '{"op":"erratum","falseFaults":true}',
      '{"op":"access","by":"host","kind":"write","spa":"0x0","size":"2M"}',
      '{"op":"vmrun","asid":1,"gpa":"0x0","spa":"0x0","snp":false}',
      '{"op":"access","by":"host","kind":"write","spa":"0x0","size":"2M"}',
      '{"op":"access","by":"host","kind":"read","spa":"0x0","size":"2M"}',
      '{"op":"erratum","falseFaults":false}',
      '{"op":"access","by":"host","kind":"write","spa":"0x0","size":"2M"}'
    )
    expect(replies.map((reply) => reply.fault ?? "ok")).toEqual(["ok", "ok", "ok", "#PF", "ok", "ok", "ok"])
  })

  const bad: ReadonlyArray<readonly [string, RegExp]> = [
    [
      '{"op":"restore","spa":"0x5000","name":"never"}',
      /^line 2: name: got a name without a copy, expected one that save was given$/
    ],
    ['{"op":"save","spa":"0x5000","name":""}', /^line 2: name: got "", expected a text that is not empty$/],
    [
      '{"op":"store","by":"host","spa":"0x5000","data":"0"}',
      /^line 2: data: got "0", expected 1 to 64 bytes as hexadecimal digits/
    ],
    [`{"op":"store","by":"host","spa":"0x5000","data":"${"00".repeat(65)}"}`, /^line 2: data: /],
    [
      '{"op":"load","by":"host","spa":"0x5000","bytes":0}',
      /^line 2: bytes: got 0, expected a whole number from 1 to 64$/
    ],
    ['{"op":"load","by":"non-snp","spa":"0x5000","bytes":1}', /^line 2: by: /],
    ['{"op":"save","spa":"0x5000","name":"a","more":1}', /^line 2: more: unknown key/],
    [
      '{"op":"save","spa":"0x500000000","name":"a"}',
      /^line 2: spa: got frame 0x500000, expected memory that the machine has$/
    ],
    ['{"op":"tlb-flush","asid":0}', /^line 2: asid: /],
    ['{"op":"save","spa":"0x5000","name":"a","name":"b"}', /^line 2: name: given twice/]
  ]
  it.each(bad)("refuses %s", (line, expected) => {
    const { replies, error } = replay(line)
    expect([replies, error]).toEqual([[], expect.stringMatching(expected)])
  })

  it("is no part of the common format", () => {
    const { error } = new TraceReplay().feed(new TextEncoder().encode(`${CONFIG}\n{"op":"tlb-flush","asid":1}\n`))
    expect(error).toMatch(/^line 2: op: got "tlb-flush", expected "rmpupdate", /)
  })
})
