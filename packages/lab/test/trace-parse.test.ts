import { resolveSwitches } from "@vmpl-lab/rmp"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type Action, actionText, configText, LineInvalid, parseAction, parseConfig } from "../src/index.ts"
import { anyAction, anyConfig, WIDE } from "./actions.ts"

const PERMS = { read: true, write: false, executeUser: true, executeSupervisor: false, shadowStack: true }
const NPT = { spa: "0x5000", size: "4K" }
const GUEST = { asid: 1022, vmpl: 3, gpa: "0x1000", npt: NPT }
const AT = { asid: 1022, vmpl: 3, gfn: 1, npt: { pfn: 5, size: 0 } }

/** One line of each operation with all its keys, and the action it means. */
const LINES: ReadonlyArray<readonly [line: { readonly [key: string]: unknown }, action: object]> = [
  [
    { op: "rmpupdate", spa: "0x5000", assigned: true, size: "2M", immutable: false, gpa: "0xFFFFFFFFFF000", asid: 0 },
    { op: "rmpupdate", pfn: 5, assigned: true, size: 1, immutable: false, gfn: 2 ** 40 - 1, asid: 0 }
  ],
  [
    { op: "psmash", spa: "0x0" },
    { op: "psmash", pfn: 0 }
  ],
  [
    { op: "rmpread", spa: "0x00abC000" },
    { op: "rmpread", pfn: 0xabc }
  ],
  [
    { op: "pvalidate", ...GUEST, size: "4K", validate: true },
    { op: "pvalidate", ...AT, size: 0, validate: true }
  ],
  [
    { op: "rmpadjust", ...GUEST, size: "4K", targetVmpl: 255, perms: PERMS, vmsa: false },
    { op: "rmpadjust", ...AT, size: 0, targetVmpl: 255, mask: 0b10101, vmsa: false }
  ],
  [
    { op: "rmpquery", ...GUEST, npt: { spa: "0x200000", size: "2M" }, targetVmpl: 0 },
    { op: "rmpquery", ...AT, npt: { pfn: 512, size: 1 }, targetVmpl: 0 }
  ],
  [
    { op: "access", by: "host", kind: "page-table-write", spa: "0x1000", size: "2M" },
    { op: "access", by: "host", kind: 4, pfn: 1, size: 1 }
  ],
  [
    { op: "access", by: "non-snp", kind: "write", spa: "0x1000", size: "4K" },
    { op: "access", by: "non-snp", kind: 1, pfn: 1, size: 0 }
  ],
  [
    { op: "access", by: "guest", kind: "fetch", ...GUEST, cpl: 3, cbit: false },
    { op: "access", by: "guest", kind: 2, ...AT, cpl: 3, cbit: false }
  ],
  [
    { op: "vmrun", asid: 1, gpa: "0x1000", spa: "0x2000", snp: true },
    { op: "vmrun", asid: 1, gfn: 1, pfn: 2, snp: true }
  ],
  [
    { op: "vmexit", spa: "0x2000" },
    { op: "vmexit", pfn: 2 }
  ],
  ...["PAGE_RECLAIM", "PAGE_UNSMASH", "GCTX_CREATE", "DECOMMISSION", "PAGE_SET_STATE"].map(
    (command) =>
      [
        { op: "firmware", command, spa: "0x3000" },
        { op: "firmware", command, pfn: 3 }
      ] as const
  ),
  [
    {
      op: "firmware",
      command: "LAUNCH_UPDATE",
      spa: "0x3000",
      pageType: 6,
      asid: 1,
      size: "4K",
      perms1: PERMS,
      perms2: { ...PERMS, read: false },
      perms3: { ...PERMS, executeUser: false, executeSupervisor: true }
    },
    { op: "firmware", command: "LAUNCH_UPDATE", pfn: 3, pageType: 6, asid: 1, size: 0, masks: [0x15, 0x14, 0x19] }
  ],
  [
    { op: "firmware", command: "MD_INIT", spa: "0x3000", context: "0x4000" },
    { op: "firmware", command: "MD_INIT", pfn: 3, contextPfn: 4 }
  ],
  ...["PAGE_MOVE", "SWAP_OUT", "SWAP_IN"].map(
    (command) =>
      [
        { op: "firmware", command, spa: "0x3000", target: "0x4000", metadata: "0x5000" },
        { op: "firmware", command, pfn: 3, targetPfn: 4, metadataPfn: 5 }
      ] as const
  ),
  [
    { op: "entry", spa: "0x1000" },
    { op: "entry", pfn: 1 }
  ],
  [{ op: "digest" }, { op: "digest" }]
]

const lineOf = (op: string, by?: string): { readonly [key: string]: unknown } =>
  LINES.find(([line]) => line.op === op && (by === undefined || line.by === by || line.command === by))![0]

/** The refusal of a value, as key and message. */
const refusal = (value: unknown, parse: (value: unknown) => unknown = (one) => parseAction(one, 4)): LineInvalid => {
  try {
    parse(value)
  } catch (error) {
    if (error instanceof LineInvalid) return error
    throw error
  }
  throw new Error(`accepted ${JSON.stringify(value)}`)
}

describe("a line of a trace", () => {
  it.each(LINES)("%j is understood", (line, action) => {
    expect(parseAction(line, 4)).toEqual(action)
  })

  it.each(LINES)("%j needs every key but npt, and has no other", (line) => {
    for (const key of Object.keys(line)) {
      const { [key]: _, ...rest } = line
      if (key === "npt") expect(parseAction(rest, 4)).toMatchObject({ npt: null })
      else {
        const { key: named, message } = refusal(rest)
        expect([named, message]).toEqual([key, expect.stringMatching(`^${key}: missing, expected .`)])
      }
    }
    for (const key of ["extra", "__proto__", "toString", "config "]) {
      const error = refusal(JSON.parse(`${JSON.stringify(line).slice(0, -1)},${JSON.stringify(key)}:1}`))
      expect(error.key).toBe(key)
      expect(error.message).toBe(`${key}: unknown key, expected only ${Object.keys(parseOrder(line)).join(", ")}`)
    }
  })

  it.each(LINES)("%j takes no other type for any key", (line) => {
    for (const key of Object.keys(line))
      for (const wrong of [null, [], {}, 1.5, -1, 1e99, "", "1", "0x", "yes", 5000]) {
        const error = refusal({ ...line, [key]: wrong })
        expect(error.key.split(".")[0]).toBe(key)
      }
  })

  it("comes back from its text, whatever it is", () => {
    fc.assert(
      fc.property(anyAction(WIDE), (action: Action) => {
        expect(parseAction(JSON.parse(actionText(action)), 4)).toEqual(action)
      }),
      { seed: 20261121, numRuns: 2000 }
    )
  })
})

/** The keys of a line in the order in which they are read, which is that of the error text. */
const parseOrder = (line: { readonly [key: string]: unknown }): { readonly [key: string]: unknown } => {
  if (line.op !== "access" || line.by !== "guest") return line
  const { op, by, asid, vmpl, gpa, npt, kind, cpl, cbit } = line
  return { op, by, asid, vmpl, gpa, npt, kind, cpl, cbit }
}

describe("a value out of range", () => {
  const ADDRESS = /^a 4 KiB aligned address below 2\^52 as a hexadecimal string/
  const cases: ReadonlyArray<readonly [string, object, key: string, expected: RegExp]> = [
    ["unaligned", { ...lineOf("psmash"), spa: "0x5001" }, "spa", ADDRESS],
    ["2^52", { ...lineOf("psmash"), spa: "0x10000000000000" }, "spa", ADDRESS],
    ["beyond exact numbers", { ...lineOf("psmash"), spa: "0xfffffffffffff001" }, "spa", ADDRESS],
    ["a number for an address", { ...lineOf("psmash"), spa: 4096 }, "spa", ADDRESS],
    ["decimal", { ...lineOf("psmash"), spa: "4096" }, "spa", ADDRESS],
    ["0X", { ...lineOf("psmash"), spa: "0X1000" }, "spa", ADDRESS],
    ["a sign", { ...lineOf("psmash"), spa: "-0x1000" }, "spa", ADDRESS],
    ["a blank", { ...lineOf("psmash"), spa: " 0x1000" }, "spa", ADDRESS],
    ["a line feed", { ...lineOf("psmash"), spa: "0x1000\n" }, "spa", ADDRESS],
    ["a gpa", { ...lineOf("vmrun"), gpa: "0x10000000000000" }, "gpa", ADDRESS],
    ["host ASID", { ...lineOf("pvalidate"), asid: 0 }, "asid", /^a whole number from 1 to 1022$/],
    ["ASID 0x3FF", { ...lineOf("pvalidate"), asid: 1023 }, "asid", /^a whole number from 1 to 1022$/],
    ["ASID of RMPUPDATE", { ...lineOf("rmpupdate"), asid: 1023 }, "asid", /^a whole number from 0 to 1022$/],
    ["ASID of VMRUN", { ...lineOf("vmrun"), asid: 0 }, "asid", /^a whole number from 1 to 1022$/],
    ["ASID of LAUNCH_UPDATE", { ...lineOf("firmware", "LAUNCH_UPDATE"), asid: 0 }, "asid", /^a whole number from 1/],
    ["VMPL 4", { ...lineOf("pvalidate"), vmpl: 4 }, "vmpl", /^a whole number from 0 to 3$/],
    ["target 256", { ...lineOf("rmpadjust"), targetVmpl: 256 }, "targetVmpl", /^a whole number from 0 to 255$/],
    ["target of RMPQUERY", { ...lineOf("rmpquery"), targetVmpl: 256 }, "targetVmpl", /^a whole number from 0 to 255$/],
    ["CPL 4", { ...lineOf("access", "guest"), cpl: 4 }, "cpl", /^a whole number from 0 to 3$/],
    [
      "page type 0",
      { ...lineOf("firmware", "LAUNCH_UPDATE"), pageType: 0 },
      "pageType",
      /^a whole number from 1 to 6$/
    ],
    [
      "page type 7",
      { ...lineOf("firmware", "LAUNCH_UPDATE"), pageType: 7 },
      "pageType",
      /^a whole number from 1 to 6$/
    ],
    ["1G", { ...lineOf("pvalidate"), size: "1G" }, "size", /^"4K" or "2M"$/],
    ["no operation", { ...lineOf("psmash"), op: "vmsave" }, "op", /^"rmpupdate", .* or "digest"$/],
    ["an operation of Object's", { ...lineOf("psmash"), op: "constructor" }, "op", /^"rmpupdate", /],
    ["no accessor", { ...lineOf("access", "host"), by: "iommu" }, "by", /^"host", "non-snp" or "guest"$/],
    ["no kind", { ...lineOf("access", "host"), kind: "execute" }, "kind", /^"read", .* or "page-table-write"$/],
    ["no command", { ...lineOf("firmware", "MD_INIT"), command: "SNP_INIT" }, "command", /^"LAUNCH_UPDATE", /],
    ["a guest's key for the host", { ...lineOf("access", "host"), asid: 1 }, "asid", /^only op, by, kind, spa, size$/],
    ["the host's key for a guest", { ...lineOf("access", "guest"), spa: "0x0" }, "spa", /^only op, by, asid, /],
    ["another command's key", { ...lineOf("firmware", "PAGE_RECLAIM"), asid: 1 }, "asid", /^only op, command, spa$/],
    ["no mapping", { ...lineOf("pvalidate"), npt: "0x5000" }, "npt", /^an object of spa and size/],
    ["an unaligned mapping", { ...lineOf("pvalidate"), npt: { spa: "0x5800", size: "4K" } }, "npt.spa", ADDRESS],
    [
      "a 2 MiB mapping of a 4 KiB frame",
      { ...lineOf("pvalidate"), npt: { spa: "0x5000", size: "2M" } },
      "npt.spa",
      /^a 2 MiB aligned address below 2\^52 as a hexadecimal string/
    ],
    ["a mapping without size", { ...lineOf("pvalidate"), npt: { spa: "0x5000" } }, "npt.size", /^"4K" or "2M"$/],
    ["a mapping of 1G", { ...lineOf("pvalidate"), npt: { spa: "0x0", size: "1G" } }, "npt.size", /^"4K" or "2M"$/],
    ["a mapping with more", { ...lineOf("pvalidate"), npt: { ...NPT, gpa: "0x0" } }, "npt.gpa", /^only size, spa$/],
    ["a number for perms", { ...lineOf("rmpadjust"), perms: 3 }, "perms", /^an object of read, write, executeUser, /],
    ["a sixth permission", { ...lineOf("rmpadjust"), perms: { ...PERMS, sss: true } }, "perms.sss", /^only read, /],
    ["a number in perms", { ...lineOf("rmpadjust"), perms: { ...PERMS, read: 1 } }, "perms.read", /^true or false$/]
  ]
  it.each(cases)("%s is named with its key and what was expected", (_, line, key, expected) => {
    const error = refusal(line)
    expect([error.key, error.expected]).toEqual([key, expect.stringMatching(expected)])
    expect(error.message.startsWith(`${key}: `)).toBe(true)
    expect(error.message.endsWith(`, expected ${error.expected}`)).toBe(true)
  })

  it.each(Object.keys(PERMS))("a missing permission %s is named", (name) => {
    const { [name]: _, ...rest } = PERMS as { [key: string]: boolean }
    expect(refusal({ ...lineOf("rmpadjust"), perms: rest }).message).toBe(
      `perms.${name}: missing, expected true or false`
    )
  })

  it.each([["text"], [5], [null], [true], [[]], [[{ op: "digest" }]]])("%j is no line", (value) => {
    expect(refusal(value).message).toBe(`got ${JSON.stringify(value)}, expected a JSON object`)
  })

  it("a guest's VMPL must exist in the configuration, a target need not", () => {
    expect(refusal(lineOf("pvalidate"), (one) => parseAction(one, 2)).expected).toBe("a whole number from 0 to 1")
    expect(parseAction({ ...lineOf("rmpadjust"), vmpl: 1, targetVmpl: 3 }, 2)).toMatchObject({ targetVmpl: 3 })
  })

  it("-0 is 0", () => {
    expect(Object.is((parseAction({ ...lineOf("rmpupdate"), asid: -0 }, 4) as { asid: number }).asid, 0)).toBe(true)
  })
})

describe("the first line of a trace", () => {
  const CONFIG = { pages: 1024, base: "0x200000", vmpls: 4, switches: { U1: "default", U18: "alternative" } }

  it("is the configuration; switches left out are at their default", () => {
    expect(parseConfig({ config: CONFIG })).toEqual({
      pages: 1024,
      basePfn: 512,
      vmpls: 4,
      switches: resolveSwitches({ U18: "alternative" })
    })
    const { switches: _, ...rest } = CONFIG
    expect(parseConfig({ config: rest }).switches).toEqual(resolveSwitches())
  })

  it("comes back from its text", () => {
    fc.assert(
      fc.property(anyConfig, (config) => {
        expect(parseConfig(JSON.parse(configText(config)))).toEqual(config)
      }),
      { seed: 20261121 }
    )
  })

  const cases: ReadonlyArray<readonly [value: unknown, key: string, expected: RegExp]> = [
    [{ op: "digest" }, "config", /^the configuration such as /],
    [{}, "config", /^the configuration such as /],
    [[], "", /^a JSON object$/],
    [{ config: 5 }, "config", /^the configuration such as /],
    [{ config: [] }, "config", /^the configuration such as /],
    [{ config: CONFIG, op: "digest" }, "op", /^only config$/],
    [{ config: { ...CONFIG, size: 1 } }, "config.size", /^only pages, base, vmpls, switches$/],
    [{ config: { base: "0x0", vmpls: 4 } }, "config.pages", /^a whole number from 512 to 1073741824$/],
    [{ config: { pages: 512, vmpls: 4 } }, "config.base", /^a 2 MiB aligned address/],
    [{ config: { pages: 512, base: "0x0" } }, "config.vmpls", /^a whole number from 1 to 4$/],
    [{ config: { ...CONFIG, pages: 0 } }, "config.pages", /^a whole number from 512 /],
    [{ config: { ...CONFIG, pages: 1000 } }, "config.pages", /^a multiple of 512$/],
    [{ config: { ...CONFIG, pages: 2 ** 31 } }, "config.pages", /^a whole number from 512 /],
    [{ config: { ...CONFIG, pages: "1024" } }, "config.pages", /^a whole number from 512 /],
    [{ config: { ...CONFIG, base: "0x1000" } }, "config.base", /^a 2 MiB aligned address/],
    [{ config: { ...CONFIG, base: "0x100000" } }, "config.base", /^a 2 MiB aligned address/],
    [{ config: { ...CONFIG, base: 0 } }, "config.base", /^a 2 MiB aligned address/],
    [
      { config: { ...CONFIG, base: "0xfffffffe00000" } },
      "config.pages",
      /^that the pages from base on end below 2\^52$/
    ],
    [{ config: { ...CONFIG, vmpls: 0 } }, "config.vmpls", /^a whole number from 1 to 4$/],
    [{ config: { ...CONFIG, vmpls: 5 } }, "config.vmpls", /^a whole number from 1 to 4$/],
    [{ config: { ...CONFIG, switches: [] } }, "config.switches", /^an object such as /],
    [{ config: { ...CONFIG, switches: { U0: "default" } } }, "config.switches.U0", /^only U1, U2, .*, U18$/],
    [{ config: { ...CONFIG, switches: { U19: "default" } } }, "config.switches.U19", /^only U1, /],
    [{ config: { ...CONFIG, switches: { U3: "other" } } }, "config.switches.U3", /^"default" or "alternative"$/]
  ]
  it.each(cases)("%j is refused", (value, key, expected) => {
    const error = refusal(value, parseConfig)
    expect([error.key, error.expected]).toEqual([key, expect.stringMatching(expected)])
  })

  it("may cover memory up to the last address", () => {
    expect(parseConfig({ config: { pages: 512, base: "0xfffffffe00000", vmpls: 1 } }).basePfn).toBe(2 ** 40 - 512)
  })
})
