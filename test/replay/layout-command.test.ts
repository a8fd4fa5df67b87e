import { RMP_ENTRY_FIELDS } from "@vmpl-lab/rmp"
import { GHCB_FIELDS, SECRETS_FIELDS, VMCB_FIELDS, VMSA_FIELDS } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"

const json = async (page: string): Promise<ReadonlyArray<{ readonly [key: string]: unknown }>> => {
  const { code, out, err } = await vmplLab(["layout", page, "--json"])
  expect({ code, err }).toEqual({ code: 0, err: "" })
  expect(out).toMatch(/^\[\{"field":"\w+","offset":\d+,"size":\d+[^\n]*\]\n$/)
  return JSON.parse(out)
}

describe("vmpl-lab layout --json", () => {
  it.concurrent.each([
    ["vmsa", VMSA_FIELDS, { field: "sev_features", offset: 0x3b0, size: 8 }],
    ["vmcb", VMCB_FIELDS, { field: "ghcb_gpa", offset: 0xa0, size: 8 }],
    ["ghcb", GHCB_FIELDS, { field: "sw_exit_info_1", offset: 0x398, size: 8 }],
    ["secrets", SECRETS_FIELDS, { field: "svsm_caa", offset: 0x150, size: 8 }],
    ["rmp", RMP_ENTRY_FIELDS, { field: "asid", offset: 0, size: 8, bit: 51, bits: 10 }],
    ["rmpread", null, { field: "asid", offset: 0xc, size: 4 }],
    ["cpuid", null, { field: "count", offset: 0, size: 4 }],
    ["cpuid", null, { field: "edx", offset: 0x34, size: 4, count: 64, stride: 48 }]
  ] as const)("%s", async (page, fields, sample) => {
    const rows = await json(page)
    if (fields !== null) expect(rows).toEqual(fields)
    expect(rows).toContainEqual(sample)
    const names = rows.map(({ field }) => field)
    expect(new Set(names).size).toBe(names.length)
    for (const { field } of rows) expect(field).toMatch(/^[a-z][a-z0-9_]*$/)
  })
})

describe("vmpl-lab layout", () => {
  it("prints a table with offsets in hexadecimal and decimal", async () => {
    const { code, out, err } = await vmplLab(["layout", "vmsa"])
    expect({ code, err }).toEqual({ code: 0, err: "" })
    expect(out).toMatch(/^VMSA: /)
    expect(out).toMatch(/│ sev_features +│ +0x3b0 │ +944 │ +8 │\n/)
    expect(out.match(/^│ /gm)).toHaveLength(VMSA_FIELDS.length + 1)
  })

  it("says where a field stands that is no whole bytes or one of many", async () => {
    expect((await vmplLab(["layout", "rmp"])).out).toMatch(/│ asid +│ +0x0 │ +0 │ +8 │ bits 60:51 +│\n/)
    expect((await vmplLab(["layout", "rmp"])).out).toMatch(/│ validated +│ +0x0 │ +0 │ +8 │ bit 62 +│\n/)
    expect((await vmplLab(["layout", "cpuid"])).out).toMatch(
      /│ eax_in +│ +0x10 │ +16 │ +4 │ 64 of them, 48 bytes apart +│\n/
    )
  })
})
