/**
 * The layouts that `vmpl-lab layout` prints against the structures of the kernel's own asm/svm.h, as a C compiler lays
 * them out. Needs the headers of some Linux kernel, Debian's package `linux-headers-amd64`, and `cc`.
 */
import { execFileSync, spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { SEGMENT, VMCB_SAVE_AREA, VMCB_SAVE_FIELDS, VMSA_STATE_SIZE } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"

const PROGRAM = fileURLToPath(new URL("./kernel-headers/", import.meta.url))
const SOURCES = "/usr/src"
const HEADER = "arch/x86/include/asm/svm.h"

const STRUCTS = [
  "vmcb_seg",
  "vmcb_control_area",
  "vmcb_save_area",
  "sev_es_save_area",
  "ghcb_save_area",
  "ghcb"
] as const
type Struct = (typeof STRUCTS)[number]

interface Span {
  readonly field: string
  readonly offset: number
  readonly size: number
}

const byVersion = new Intl.Collator("en", { numeric: true })

/** The newest kernel whose headers are installed, or null. */
const newestHeaders = (): string | null =>
  (existsSync(SOURCES) ? readdirSync(SOURCES) : [])
    .filter((name) => /^linux-headers-/.test(name) && existsSync(join(SOURCES, name, HEADER)))
    .sort(byVersion.compare)
    .map((name) => join(SOURCES, name))
    .at(-1) ?? null

/** Names of a structure's members, read from its text: C itself cannot list them. */
const membersOf = (header: string, struct: Struct): ReadonlyArray<string> => {
  const text = header.replace(/\/\*[\s\S]*?\*\//g, "")
  const body = new RegExp(`struct\\b[^{};]*\\b${struct}\\s*\\{([\\s\\S]*?)\\n\\}`).exec(text)?.[1]
  if (body === undefined) throw new Error(`${HEADER}: no struct ${struct}`)
  return [...body.matchAll(/(\w+)(?:\[[^\]]*\])?\s*;/g)].map((match) => match[1]!)
}

interface Measured {
  readonly size: number
  readonly members: ReadonlyArray<Span>
}

/** Compiles the program against the headers and runs it. Warnings would be about the header, which is not ours. */
const measure = (headers: string): { readonly [name in Struct]: Measured } => {
  const folder = mkdtempSync(join(tmpdir(), "vmpl-lab-kernel-headers-"))
  try {
    const header = readFileSync(join(headers, HEADER), "utf8")
    const lines = STRUCTS.flatMap((struct) => [
      `STRUCT(${struct})`,
      ...membersOf(header, struct).map((member) => `MEMBER(${struct}, ${member})`)
    ])
    writeFileSync(join(folder, "members.h"), `${lines.join("\n")}\n`)
    const include = [folder, join(PROGRAM, "include"), join(headers, "arch/x86/include")].flatMap((one) => ["-I", one])
    const program = join(folder, "offsets")
    execFileSync("cc", ["-std=gnu11", "-w", ...include, "-o", program, join(PROGRAM, "offsets.c")])
    const rows = execFileSync(program, { encoding: "utf8" })
      .trim()
      .split("\n")
      .map((line) => line.split(" "))
      .map(([struct, field, offset, size]) => ({ struct, field: field!, offset: Number(offset), size: Number(size) }))
    const one = (struct: Struct): Measured => {
      const [whole, ...members] = rows.filter((row) => row.struct === struct)
      return { size: whole!.size, members: members.map(({ field, offset, size }) => ({ field, offset, size })) }
    }
    return Object.fromEntries(STRUCTS.map((struct) => [struct, one(struct)])) as { [name in Struct]: Measured }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const headers = newestHeaders()
const missing =
  headers === null ? "no Linux headers in /usr/src" : spawnSync("cc", ["--version"]).error ? "no cc" : null
if (missing !== null) process.stderr.write(`kernel-headers.test.ts: left out, ${missing}\n`)
const kernel = headers !== null && missing === null ? measure(headers) : null

/** Areas without a meaning. `reserved_sw` is none of them: it is reserved for software. */
const isReserved = ({ field }: Span): boolean => /^reserved_(?:\d+|0x[0-9a-f]+|save)$/.test(field)

/** The same bytes under other names, or cut otherwise. Of `kernel`, a header may have some only: names change. */
interface Same {
  readonly kernel: ReadonlyArray<string>
  readonly ours: ReadonlyArray<string>
  readonly why: string
  /** The kernel may declare the first bytes only. */
  readonly firstBytesOnly?: true
}

interface Page {
  readonly structs: ReadonlyArray<readonly [struct: Struct, base: number]>
  readonly same: ReadonlyArray<Same>
  /** Members of the kernel that our table leaves out, each with the reason. */
  readonly kernelOnly: { readonly [member: string]: string }
  /** Fields that our table has and the kernel may lack, by the reason. */
  readonly oursOnly: { readonly [why: string]: string }
  readonly fields: () => Promise<ReadonlyArray<Span>>
}

const printed = (page: string): (() => Promise<ReadonlyArray<Span>>) => {
  let rows: Promise<ReadonlyArray<Span>> | null = null
  const run = async (): Promise<ReadonlyArray<Span>> => {
    const { code, out, err } = await vmplLab(["layout", page, "--json"])
    expect({ code, err }).toEqual({ code: 0, err: "" })
    return JSON.parse(out)
  }
  return () => {
    rows ??= run()
    return rows
  }
}

const COUNTERS = [0, 1, 2, 3, 4, 5].map((n) => `perf_ctl${n} perf_ctr${n}`).join(" ")
const PERFORMANCE = {
  "performance counters: KVM does not virtualize them": `${COUNTERS} instr_retired_ctr perf_ctr_global_sts perf_ctr_global_ctl`,
  "debug extensions: KVM does not virtualize them": "debug_extn_ctl",
  "LBR stack: KVM virtualizes the last branch only": "lbr_stack_from_to lbr_select",
  "IBS: in patches that are not merged":
    "ibs_fetch_ctl ibs_fetch_linear_addr ibs_op_ctl ibs_op_rip ibs_op_data ibs_op_data2 ibs_op_data3 " +
    "ibs_dc_linear_addr ibs_br_target ibs_fetch_extd_ctl"
}

const PAGES: { readonly [page: string]: Page } = {
  vmsa: {
    structs: [["sev_es_save_area", 0]],
    same: [
      ...["0", "1", "2", "3"].map((n) => ({
        kernel: [`vmpl${n}_ssp`, `pl${n}_ssp`],
        ours: [`pl${n}_ssp`],
        why: "a privilege level, not a VMPL: Linux corrected the name"
      })),
      { kernel: ["tsc_scale"], ours: ["guest_tsc_scale"], why: "AMD's name" },
      { kernel: ["tsc_offset"], ours: ["guest_tsc_offset"], why: "AMD's name" }
    ],
    kernelOnly: {},
    oursOnly: {
      ...PERFORMANCE,
      "newer than the oldest header": "tsc_aux guest_tsc_scale guest_tsc_offset",
      "Linux names it in the VMCB's save area only": "spec_ctrl",
      "the kernel never reads or writes it": "reg_prot_nonce secure_avic_control xsave_valid_bitmap",
      "of the firmware": "checksum_pa",
      "behind the structure's end": "guest_intercept_words guest_msr_intercepts fpreg_ki fpreg_zmmhi fpreg_hizmm"
    },
    fields: printed("vmsa")
  },
  vmcb: {
    structs: [["vmcb_control_area", 0]],
    same: [
      {
        kernel: ["intercepts"],
        ours: [
          ...["intercept_cr", "intercept_dr", "intercept_exceptions"],
          ...["intercept_word3", "intercept_word4", "intercept_word5"]
        ],
        why: "an array"
      },
      { kernel: ["exit_code", "exit_code_hi"], ours: ["exit_code"], why: "two halves in older headers" },
      { kernel: ["nested_ctl", "misc_ctl"], ours: ["nested_ctl"], why: "renamed" },
      { kernel: ["virt_ext", "misc_ctl2"], ours: ["virt_ext"], why: "renamed" },
      { kernel: ["hv_enlightenments", "reserved_sw"], ours: ["reserved_sw"], why: "a union" }
    ],
    kernelOnly: {},
    oursOnly: {
      "newer than the oldest header": "erap_ctl bus_lock_counter allowed_sev_features guest_sev_features",
      "of Secure AVIC, in patches that are not merged": "update_irr requested_irr",
      "KVM takes them from the GHCB": "vmgexit_rax vmgexit_cpl"
    },
    fields: printed("vmcb")
  },
  "VMCB's save area": {
    structs: [["vmcb_save_area", VMCB_SAVE_AREA]],
    same: [
      {
        kernel: ["spec_ctrl"],
        ours: ["spec_ctrl"],
        why: "the MSR has eight bytes, older headers have four of them",
        firstBytesOnly: true
      }
    ],
    kernelOnly: {},
    oursOnly: PERFORMANCE,
    fields: () => Promise.resolve(VMCB_SAVE_FIELDS)
  },
  ghcb: {
    structs: [
      ["ghcb_save_area", 0],
      ["ghcb", 0]
    ],
    same: [],
    kernelOnly: { save: "the save area, which is compared member by member" },
    oursOnly: {},
    fields: printed("ghcb")
  }
}

const endOf = ({ offset, size }: Span): number => offset + size

/** From the first byte to the last of several fields that touch each other. */
const spanOf = (fields: ReadonlyArray<Span>): { readonly offset: number; readonly size: number } => {
  const offset = Math.min(...fields.map((one) => one.offset))
  return { offset, size: Math.max(...fields.map(endOf)) - offset }
}

describe.skipIf(kernel === null)("the kernel's structures", () => {
  it.each(STRUCTS)("%s: every member was found, so that they cover it without a gap", (struct) => {
    const { size, members } = kernel![struct]
    let end = 0
    for (const member of members) {
      // Alternatives of a union begin where the one before began.
      if (member.offset !== end) expect(endOf(member)).toBe(end)
      end = endOf(member)
    }
    expect(end).toBe(size)
  })

  it("have the sizes that the model counts on", () => {
    expect(kernel!.vmcb_control_area.size).toBe(VMCB_SAVE_AREA)
    expect(kernel!.sev_es_save_area.size).toBe(VMSA_STATE_SIZE)
    expect(kernel!.ghcb_save_area.size).toBe(1032)
    expect(kernel!.ghcb.size).toBe(4096)
  })

  it("have segment registers like the model's", () => {
    const ours = { ...SEGMENT, attrib: SEGMENT.attributes } as { readonly [name: string]: number }
    expect(kernel!.vmcb_seg.members.map(({ field }) => [field, ours[field]])).toEqual(
      kernel!.vmcb_seg.members.map(({ field, offset }) => [field, offset])
    )
    expect(kernel!.vmcb_seg.size).toBe(16)
  })
})

describe.skipIf(kernel === null).each(Object.entries(PAGES))("%s", (_, page) => {
  const members = page.structs.flatMap(([struct, base]) =>
    (kernel?.[struct].members ?? []).map(({ field, offset, size }) => ({ field, offset: base + offset, size }))
  )
  const absent = new Set(Object.values(page.oursOnly).flatMap((names) => names.split(" ")))
  const meaning = members.filter((one) => !isReserved(one) && !(one.field in page.kernelOnly))
  const sameAs = (name: string): Same =>
    page.same.find((one) => one.kernel.includes(name)) ?? { kernel: [name], ours: [name], why: "same name" }

  it("has every member of the kernel's at its offset with its size", async () => {
    const fields = await page.fields()
    expect(meaning.length).toBeGreaterThan(20)
    for (const { field } of meaning) {
      const { kernel: theirs, ours, firstBytesOnly } = sameAs(field)
      const [mine, other] = [
        fields.filter((one) => ours.includes(one.field)),
        members.filter((one) => theirs.includes(one.field))
      ]
      expect({ [field]: mine.map((one) => one.field) }).toEqual({ [field]: ours })
      const [span, size] = [spanOf(mine), spanOf(other).size]
      if (firstBytesOnly) expect([4, span.size]).toContain(size)
      expect({ [field]: span }).toEqual({
        [field]: { offset: spanOf(other).offset, size: firstBytesOnly ? span.size : size }
      })
    }
  })

  it("has no field that is neither the kernel's nor listed with a reason", async () => {
    const known = new Set(meaning.flatMap(({ field }) => sameAs(field).ours))
    const unexplained = (await page.fields()).filter(({ field }) => !known.has(field) && !absent.has(field))
    expect(unexplained).toEqual([])
  })

  it("has what the kernel does not name inside its reserved areas or behind its end", async () => {
    const known = new Set(meaning.flatMap(({ field }) => sameAs(field).ours))
    const end = Math.max(...members.map(endOf))
    for (const one of (await page.fields()).filter(({ field }) => !known.has(field))) {
      const inside = members.some((area) => isReserved(area) && area.offset <= one.offset && endOf(one) <= endOf(area))
      expect({ [one.field]: inside || one.offset >= end }).toEqual({ [one.field]: true })
    }
  })

  it("has no reason for what is not there", async () => {
    const names = new Set((await page.fields()).map(({ field }) => field))
    const reasons = [...absent, ...page.same.flatMap(({ ours }) => ours)]
    expect(reasons.filter((name) => !names.has(name))).toEqual([])
    expect(Object.keys(page.kernelOnly).filter((name) => !members.some(({ field }) => field === name))).toEqual([])
  })
})
