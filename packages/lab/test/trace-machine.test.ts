import { describe, expect, it } from "vitest"
import { TraceReplay } from "../src/index.ts"

const CONFIG = { config: { pages: 1024, base: "0x0", vmpls: 4 } }
const NONE = { read: false, write: false, executeUser: false, executeSupervisor: false, shadowStack: false }
const FULL = { read: true, write: true, executeUser: true, executeSupervisor: true, shadowStack: false }
const R = { ...NONE, read: true }

type Line = { readonly [key: string]: unknown }

/** Replies to lines, as text, after a configuration. */
const replies = (lines: ReadonlyArray<Line>, config: object = CONFIG): ReadonlyArray<string> => {
  const trace = new TraceReplay()
  const text = [config, ...lines].map((line) => `${JSON.stringify(line)}\n`).join("")
  const { out, error } = trace.feed(new TextEncoder().encode(text))
  expect(error).toBe(null)
  expect(trace.end()).toEqual({ out: "", error: null })
  return out.trimEnd().split("\n").slice(1)
}

const withSwitches = (switches: object): object => ({ config: { ...CONFIG.config, switches } })

// Building blocks. A 4 KiB page of guest 1 at sPA 0x5000 and GPA 0x1000; a 2 MiB page at sPA 0x200000 and GPA 0x400000.
const NPT = { spa: "0x5000", size: "4K" }
const NPT_2M = { spa: "0x200000", size: "2M" }
const give = (more: Line = {}): Line => ({
  ...{ op: "rmpupdate", spa: "0x5000", assigned: true, size: "4K", immutable: false, gpa: "0x1000", asid: 1 },
  ...more
})
const give2M = (more: Line = {}): Line => give({ spa: "0x200000", size: "2M", gpa: "0x400000", ...more })
const validate = (more: Line = {}): Line => ({
  ...{ op: "pvalidate", asid: 1, vmpl: 0, gpa: "0x1000", npt: NPT, size: "4K", validate: true },
  ...more
})
const AT_2M = { gpa: "0x400000", npt: NPT_2M, size: "2M" }
const adjust = (more: Line = {}): Line => ({
  ...{ op: "rmpadjust", asid: 1, vmpl: 0, gpa: "0x1000", npt: NPT, size: "4K", targetVmpl: 1, perms: R, vmsa: false },
  ...more
})
const query = (more: Line = {}): Line => ({
  ...{ op: "rmpquery", asid: 1, vmpl: 0, gpa: "0x1000", npt: NPT, targetVmpl: 1 },
  ...more
})
const access = (more: Line = {}): Line => ({
  ...{ op: "access", by: "guest", kind: "read", asid: 1, vmpl: 0, cpl: 0, cbit: true, gpa: "0x1000", npt: NPT },
  ...more
})
const plain = (by: "host" | "non-snp", kind: string, more: Line = {}): Line => ({
  ...{ op: "access", by, kind, spa: "0x5000", size: "4K" },
  ...more
})
const vmrun = (more: Line = {}): Line => ({ op: "vmrun", asid: 1, gpa: "0x1000", spa: "0x5000", snp: true, ...more })
const firmware = (command: string, more: Line = {}): Line => ({ op: "firmware", command, spa: "0x5000", ...more })
const launch = (more: Line = {}): Line =>
  firmware("LAUNCH_UPDATE", { pageType: 1, asid: 1, size: "4K", perms1: R, perms2: NONE, perms3: FULL, ...more })
const preGuest = give({ immutable: true })
const toFirmware = give({ immutable: true, gpa: "0x0", asid: 0 })

const NPF = '{"fault":"#NPF","bits":["RMP"]}'
const SIZEM = '{"fault":"#NPF","bits":["RMP","SIZEM"]}'
const VMPL = '{"fault":"#NPF","bits":["RMP","VMPL"]}'
const UNMAPPED = '{"fault":"#NPF","bits":[]}'
const VC = '{"fault":"#VC","error":"0x404"}'
const PF = '{"fault":"#PF","bits":["RMP"]}'
const INVALID = '{"exit":"VMEXIT_INVALID"}'
const OK = '{"ok":true}'
const eax = (code: number): string => `{"eax":${code}}`
const cf = (code: number, carry: number): string => `{"eax":${code},"cf":${carry}}`
const status = (name: string): string => `{"status":"${name}"}`
const { npt: _npt, ...UNMAPPED_PVALIDATE } = validate()
const { npt: _npt2, ...UNMAPPED_ACCESS } = access()

type Case = readonly [what: string, lines: ReadonlyArray<Line>, last: string, switches?: object]

const CASES: ReadonlyArray<Case> = [
  ["RMPUPDATE succeeds", [give()], eax(0)],
  ["RMPUPDATE of 2 MiB at a 4 KiB address", [give({ size: "2M" })], eax(1)],
  ["RMPUPDATE of a page that is not covered", [give({ spa: "0x400000" })], eax(1)],
  ["RMPUPDATE that unassigns and names an ASID", [give({ assigned: false })], eax(1)],
  ["RMPUPDATE of an immutable page", [preGuest, give()], eax(2)],
  ["RMPUPDATE inside a 2 MiB page", [give2M(), give({ spa: "0x205000" })], eax(4)],
  [
    "RMPUPDATE of a VMSA in use",
    [give(), validate(), adjust({ vmsa: true }), vmrun(), give({ gpa: "0x2000" })],
    eax(3)
  ],
  ["PSMASH succeeds", [give2M(), { op: "psmash", spa: "0x200000" }], eax(0)],
  ["PSMASH at a 4 KiB address", [{ op: "psmash", spa: "0x201000" }], eax(1)],
  ["PSMASH of no 2 MiB page", [{ op: "psmash", spa: "0x200000" }], eax(7)],
  ["PSMASH of no 2 MiB page, U4", [{ op: "psmash", spa: "0x200000" }], eax(4), { U4: "alternative" }],
  [
    "RMPREAD",
    [give({ gpa: "0xABCDEF000", immutable: true }), { op: "rmpread", spa: "0x5000" }],
    '{"eax":0,"entry":{"assigned":true,"size":"4K","immutable":true,"gpa":"0xabcdef000","asid":1,"regionStatus":false}}'
  ],
  [
    "RMPREAD of a region's first page",
    [give(), { op: "rmpread", spa: "0x0" }],
    '{"eax":0,"entry":{"assigned":false,"size":"4K","immutable":false,"gpa":"0x0","asid":0,"regionStatus":true}}'
  ],
  [
    "RMPREAD of a 2 MiB page",
    [give2M(), { op: "rmpread", spa: "0x200000" }],
    '{"eax":0,"entry":{"assigned":true,"size":"2M","immutable":false,"gpa":"0x400000","asid":1,"regionStatus":false}}'
  ],
  ["RMPREAD of a page that is not covered", [{ op: "rmpread", spa: "0x400000" }], eax(1)],

  ["PVALIDATE", [give(), validate()], cf(0, 0)],
  ["PVALIDATE that changes nothing", [give(), validate(), validate()], cf(0, 1)],
  ["PVALIDATE(0) of an invalid page", [give(), validate({ validate: false })], cf(0, 1)],
  ["PVALIDATE of 2 MiB", [give2M(), validate(AT_2M)], cf(0, 0)],
  ["PVALIDATE of 2 MiB at a 4 KiB GPA", [give2M(), validate({ ...AT_2M, gpa: "0x401000" })], cf(1, 0)],
  [
    "PVALIDATE of 2 MiB on 4 KiB",
    [give({ spa: "0x0", gpa: "0x400000" }), validate({ ...AT_2M, npt: { spa: "0x0", size: "4K" } })],
    cf(6, 0)
  ],
  [
    "PVALIDATE of 4 KiB on 2 MiB",
    [give2M(), validate({ gpa: "0x405000", npt: { spa: "0x205000", size: "4K" } })],
    SIZEM
  ],
  ["PVALIDATE at VMPL1", [give(), validate({ vmpl: 1 })], '{"fault":"#GP"}'],
  ["PVALIDATE at VMPL1, U3", [give(), validate({ vmpl: 1 })], '{"fault":"#UD"}', { U3: "alternative" }],
  ["PVALIDATE of a GPA that is not mapped", [give(), UNMAPPED_PVALIDATE], UNMAPPED],
  ["PVALIDATE of another guest's page", [give(), validate({ asid: 2 })], NPF],
  ["PVALIDATE of an immutable page", [preGuest, validate()], NPF],
  [
    "PVALIDATE of a VMSA in use",
    [give(), validate(), adjust({ vmsa: true }), vmrun(), validate({ validate: false })],
    cf(3, 0)
  ],

  ["RMPADJUST", [give(), validate(), adjust()], eax(0)],
  ["RMPADJUST of a page that is not validated", [give(), adjust()], VC],
  ["RMPADJUST of its own level", [give(), validate(), adjust({ targetVmpl: 0 })], eax(2)],
  ["RMPADJUST of a level above", [give(), validate(), adjust({ vmpl: 2, targetVmpl: 1 })], eax(2)],
  [
    "RMPADJUST beyond its own rights",
    [give(), validate(), adjust(), adjust({ vmpl: 1, targetVmpl: 2, perms: FULL })],
    eax(2)
  ],
  ["RMPADJUST within its own rights", [give(), validate(), adjust(), adjust({ vmpl: 1, targetVmpl: 2 })], eax(0)],
  ["RMPADJUST of VMPL4", [give(), validate(), adjust({ targetVmpl: 4 })], eax(1)],
  ["RMPADJUST of VMPL255", [give(), validate(), adjust({ targetVmpl: 255 })], eax(1)],
  ["RMPADJUST of 2 MiB", [give2M(), validate(AT_2M), adjust(AT_2M)], eax(0)],
  [
    "RMPADJUST of shadow stacks beyond VMPL0's",
    [give(), validate(), adjust({ perms: { ...R, shadowStack: true } })],
    eax(2)
  ],
  [
    "RMPADJUST of shadow stacks, U7",
    [give(), validate(), adjust({ perms: { ...R, shadowStack: true } })],
    eax(0),
    { U7: "alternative" }
  ],

  [
    "RMPQUERY",
    [give(), validate(), adjust({ perms: { ...NONE, write: true, executeUser: true }, vmsa: true }), query()],
    '{"eax":0,"perms":{"read":false,"write":true,"executeUser":true,"executeSupervisor":false,"shadowStack":false},"vmsa":true,"size":"4K"}'
  ],
  [
    "RMPQUERY of a 2 MiB page",
    [give2M(), validate(AT_2M), query({ gpa: "0x405000", npt: NPT_2M })],
    `{"eax":0,"perms":${JSON.stringify(NONE)},"vmsa":false,"size":"2M"}`
  ],
  ["RMPQUERY of its own level", [give(), validate(), query({ targetVmpl: 0 })], eax(2)],
  ["RMPQUERY of VMPL4", [give(), validate(), query({ targetVmpl: 4 })], eax(1)],
  ["RMPQUERY of a page that is not validated", [give(), query()], VC],
  ["RMPQUERY of a remapped page", [give(), validate(), query({ gpa: "0x2000" })], NPF],

  ["guest read", [give(), validate(), access()], OK],
  ["guest read through a 2 MiB mapping", [give2M(), validate(AT_2M), access({ gpa: "0x5ff000", npt: NPT_2M })], OK],
  [
    "guest read through a 2 MiB mapping of another GPA",
    [give2M(), validate(AT_2M), access({ gpa: "0x605000", npt: NPT_2M })],
    NPF
  ],
  ["guest read of a GPA that is not mapped", [give(), validate(), UNMAPPED_ACCESS], UNMAPPED],
  ["guest read of a page that is not validated", [give(), access()], VC],
  ["guest read at VMPL1", [give(), validate(), access({ vmpl: 1 })], VMPL],
  ["guest read with a mask that allows it", [give(), validate(), adjust(), access({ vmpl: 1 })], OK],
  ["guest write with a mask of Read", [give(), validate(), adjust(), access({ vmpl: 1, kind: "write" })], VMPL],
  [
    "guest page-table-read with a mask of Read",
    [give(), validate(), adjust(), access({ vmpl: 1, kind: "page-table-read" })],
    OK
  ],
  [
    "guest page-table-write with a mask of Read",
    [give(), validate(), adjust(), access({ vmpl: 1, kind: "page-table-write" })],
    VMPL
  ],
  [
    "guest fetch at CPL 3",
    [give(), validate(), adjust({ perms: { ...NONE, executeUser: true } }), access({ vmpl: 1, kind: "fetch", cpl: 3 })],
    OK
  ],
  [
    "guest fetch at CPL 2 with a mask of Execute-User",
    [give(), validate(), adjust({ perms: { ...NONE, executeUser: true } }), access({ vmpl: 1, kind: "fetch", cpl: 2 })],
    VMPL
  ],
  ["shared guest read of a hypervisor page", [access({ cbit: false })], OK],
  ["shared guest write of a hypervisor page", [access({ cbit: false, kind: "write" })], OK],
  ["shared guest write of its own page", [give(), access({ cbit: false, kind: "write" })], NPF],
  ["guest fetch without C-bit from a hypervisor page", [access({ cbit: false, kind: "fetch" })], NPF],
  ["host read of a guest page", [give(), plain("host", "read")], OK],
  ["host fetch from a guest page", [give(), plain("host", "fetch")], OK],
  ["host write to a guest page", [give(), plain("host", "write")], PF],
  ["host page-table-read of a guest page", [give(), plain("host", "page-table-read")], PF],
  ["host page-table-write of a guest page", [give(), plain("host", "page-table-write")], PF],
  ["host write to a hypervisor page", [give(), plain("host", "write", { spa: "0x6000" })], OK],
  ["host 2 MiB write over a guest page", [give(), plain("host", "write", { spa: "0x6000", size: "2M" })], PF],
  ["host write to a page that is not covered", [plain("host", "write", { spa: "0x400000" })], OK],
  ["write of a guest without SNP to a guest page", [give(), plain("non-snp", "write")], NPF],
  ["read of a guest without SNP", [give(), plain("non-snp", "read")], OK],

  ["VMRUN of a VMSA", [give(), validate(), adjust({ vmsa: true }), vmrun()], OK],
  ["VMRUN of a VMSA in use", [give(), validate(), adjust({ vmsa: true }), vmrun(), vmrun()], OK],
  ["VMRUN of no VMSA", [give(), validate(), vmrun()], INVALID],
  ["VMRUN of another guest's VMSA", [give(), validate(), adjust({ vmsa: true }), vmrun({ asid: 2 })], INVALID],
  ["VMRUN of a VMSA at another GPA", [give(), validate(), adjust({ vmsa: true }), vmrun({ gpa: "0x2000" })], INVALID],
  ["VMRUN of a page that is not covered", [vmrun({ spa: "0x400000" })], INVALID],
  ["VMRUN without SNP", [vmrun({ snp: false })], OK],
  ["VMRUN without SNP of a guest page", [give(), vmrun({ snp: false })], INVALID],
  ["VMRUN without SNP of a page that is not covered", [vmrun({ spa: "0x400000", snp: false })], OK],
  ["RMPUPDATE of a VMSA in use without SNP", [vmrun({ snp: false }), give()], eax(3)],
  ["RMPUPDATE after a refused VMRUN", [give(), vmrun(), give({ gpa: "0x2000" })], eax(0)],
  [
    "RMPUPDATE after #VMEXIT",
    [
      give(),
      validate(),
      adjust({ vmsa: true }),
      vmrun(),
      vmrun(),
      { op: "vmexit", spa: "0x5000" },
      give({ gpa: "0x2000" })
    ],
    eax(0)
  ],
  ["#VMEXIT of a page that is not in use", [{ op: "vmexit", spa: "0x5000" }], OK],
  ["#VMEXIT of a page that is not covered", [{ op: "vmexit", spa: "0x400000" }], OK],

  ["GCTX_CREATE", [toFirmware, firmware("GCTX_CREATE")], status("SUCCESS")],
  ["GCTX_CREATE of a hypervisor page", [firmware("GCTX_CREATE")], status("INVALID_PAGE_STATE")],
  [
    "GCTX_CREATE of a 2 MiB page",
    [give2M({ immutable: true, gpa: "0x0", asid: 0 }), firmware("GCTX_CREATE", { spa: "0x200000" })],
    status("INVALID_PAGE_SIZE")
  ],
  ["DECOMMISSION", [toFirmware, firmware("GCTX_CREATE"), firmware("DECOMMISSION")], status("SUCCESS")],
  ["DECOMMISSION of no context", [toFirmware, firmware("DECOMMISSION")], status("INVALID_GUEST")],
  ["LAUNCH_UPDATE", [preGuest, launch()], status("SUCCESS")],
  ["LAUNCH_UPDATE of a page in another state", [give(), launch()], status("INVALID_PAGE_STATE")],
  ["LAUNCH_UPDATE of another size", [preGuest, launch({ size: "2M" })], status("INVALID_PAGE_SIZE")],
  ["LAUNCH_UPDATE of another guest's page", [preGuest, launch({ asid: 2 })], status("INVALID_PAGE_OWNER")],
  [
    "LAUNCH_UPDATE of a 2 MiB VMSA",
    [give2M({ immutable: true }), launch({ spa: "0x200000", size: "2M", pageType: 2 })],
    status("INVALID_PAGE_SIZE")
  ],
  [
    "LAUNCH_UPDATE inside a 2 MiB page",
    [give2M({ immutable: true }), launch({ spa: "0x205000", size: "2M" })],
    status("INVALID_ADDRESS")
  ],
  ["VMRUN of a launched VMSA", [preGuest, launch({ pageType: 2 }), vmrun()], OK],
  ["VMRUN of a launched page that is no VMSA", [preGuest, launch(), vmrun()], INVALID],
  ["PAGE_RECLAIM of a Firmware page", [toFirmware, firmware("PAGE_RECLAIM")], status("SUCCESS")],

  ["entry of a page that is not covered", [{ op: "entry", spa: "0x400000" }], '{"state":"Default"}'],
  [
    "entry of a page never touched",
    [{ op: "entry", spa: "0x5000" }],
    `{"state":"Hypervisor","assigned":false,"size":"4K","immutable":false,"gpa":"0x0","asid":0,"validated":false,"vmsa":false,"inUse":false,"perms":${JSON.stringify([NONE, NONE, NONE, NONE])}}`
  ],
  [
    "entry of a launched VMSA in use",
    [preGuest, launch({ pageType: 2 }), vmrun(), { op: "entry", spa: "0x5000" }],
    `{"state":"Guest-Valid","assigned":true,"size":"4K","immutable":false,"gpa":"0x1000","asid":1,"validated":true,"vmsa":true,"inUse":true,"perms":${JSON.stringify([FULL, R, NONE, FULL])}}`
  ],
  [
    "entry of a page inside a 2 MiB page",
    [give2M(), validate(AT_2M), { op: "entry", spa: "0x205000" }],
    `{"state":"Guest-Valid","assigned":true,"size":"4K","immutable":false,"gpa":"0x0","asid":0,"validated":false,"vmsa":false,"inUse":false,"perms":${JSON.stringify([NONE, NONE, NONE, NONE])}}`
  ],
  [
    "entry after PSMASH",
    [give2M(), validate(AT_2M), { op: "psmash", spa: "0x200000" }, { op: "entry", spa: "0x205000" }],
    `{"state":"Guest-Valid","assigned":true,"size":"4K","immutable":false,"gpa":"0x405000","asid":1,"validated":true,"vmsa":false,"inUse":false,"perms":${JSON.stringify([FULL, NONE, NONE, NONE])}}`
  ]
]

describe("the last reply of a trace", () => {
  it.each(CASES.map((one): Required<Case> => [one[0], one[1], one[2], one[3] ?? {}]))(
    "%s",
    (_, lines, last, switches) => {
      expect(replies(lines, withSwitches(switches)).at(-1)).toBe(last)
    }
  )
})

describe("page states by firmware", () => {
  const stateAfter = (...lines: ReadonlyArray<Line>): string =>
    JSON.parse(replies([...lines, { op: "entry", spa: "0x5000" }]).at(-1)!).state

  it.each([
    ["Firmware", [toFirmware]],
    ["Context", [toFirmware, firmware("GCTX_CREATE")]],
    ["Firmware", [toFirmware, firmware("GCTX_CREATE"), firmware("DECOMMISSION")]],
    ["Context", [toFirmware, firmware("GCTX_CREATE"), firmware("PAGE_RECLAIM")]],
    ["Reclaim", [toFirmware, firmware("PAGE_RECLAIM")]],
    ["Pre-Guest", [preGuest]],
    ["Guest-Invalid", [preGuest, firmware("PAGE_RECLAIM")]],
    ["Guest-Valid", [preGuest, launch()]],
    ["Pre-Swap", [give(), validate(), preGuest]],
    ["Guest-Valid", [give(), validate(), preGuest, firmware("PAGE_RECLAIM")]],
    ["Hypervisor", [firmware("PAGE_RECLAIM")]]
  ] as const)("%s", (state, lines) => {
    expect(stateAfter(...lines)).toBe(state)
  })
})

describe("a machine with fewer VMPLs", () => {
  const config = (vmpls: number) => ({ config: { ...CONFIG.config, vmpls } })

  it.each([
    [1, 1],
    [2, 2],
    [2, 3],
    [3, 3]
  ])("of %i has no VMPL%i: FAIL_INPUT", (vmpls, targetVmpl) => {
    const lines = [give(), validate(), adjust({ targetVmpl }), query({ targetVmpl })]
    expect(replies(lines, config(vmpls)).slice(2)).toEqual([eax(1), eax(1)])
  })

  it("has those that it has", () => {
    expect(replies([give(), validate(), adjust()], config(2)).at(-1)).toBe(eax(0))
  })
})

describe("a machine whose memory begins elsewhere", () => {
  it("covers the given pages and no other", () => {
    const config = { config: { pages: 512, base: "0x40000000", vmpls: 4 } }
    const spas = ["0x0", "0x3ffff000", "0x40000000", "0x401ff000", "0x40200000"]
    const got = replies(
      spas.map((spa) => give({ spa })),
      config
    )
    expect(got).toEqual([1, 1, 0, 0, 1].map(eax))
  })
})

describe("the digest", () => {
  const digestAfter = (...lines: ReadonlyArray<Line>): string =>
    JSON.parse(replies([...lines, { op: "digest" }]).at(-1)!).digest

  it("has 64 hexadecimal digits and tells entries apart", () => {
    const digests = [
      digestAfter(),
      digestAfter(give()),
      digestAfter(give({ gpa: "0x2000" })),
      digestAfter(give({ asid: 2 })),
      digestAfter(give({ spa: "0x6000" })),
      digestAfter(preGuest),
      digestAfter(give(), validate()),
      digestAfter(give(), validate(), adjust()),
      digestAfter(give(), validate(), adjust({ vmsa: true })),
      digestAfter(give(), validate(), adjust({ vmsa: true }), vmrun())
    ]
    for (const digest of digests) expect(digest).toMatch(/^[0-9a-f]{64}$/)
    expect(new Set(digests).size).toBe(digests.length)
  })

  it("is the same for a state that was reached in another way", () => {
    const other = [
      give({ gpa: "0x2000", asid: 2 }),
      give(),
      validate(),
      adjust({ vmsa: true }),
      vmrun(),
      { op: "vmexit", spa: "0x5000" },
      adjust()
    ]
    expect(digestAfter(...other)).toBe(digestAfter(give(), validate(), adjust()))
    expect(digestAfter(vmrun({ snp: false }), { op: "vmexit", spa: "0x5000" })).toBe(digestAfter())
  })
})
