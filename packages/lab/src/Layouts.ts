import { RMP_ENTRY_FIELDS, RMP_STRUCT_FIELDS } from "@vmpl-lab/rmp"
import {
  CPUID_COUNT_MAX,
  CPUID_FUNCTION_BASE,
  CPUID_FUNCTION_FIELDS,
  CPUID_FUNCTION_SIZE,
  CPUID_PAGE_FIELDS,
  GHCB_FIELDS,
  SECRETS_FIELDS,
  VMCB_FIELDS,
  VMSA_FIELDS
} from "@vmpl-lab/sev-es"

/** One field of a page or structure; offset and size are bytes. */
export interface LayoutField {
  readonly field: string
  readonly offset: number
  readonly size: number
  /** Of a field narrower than its bytes: its lowest bit in that little-endian unit, and its width. */
  readonly bit?: number
  readonly bits?: number
  /** Of a field that stands in an array: how many there are, and the bytes from one to the next. */
  readonly count?: number
  readonly stride?: number
}

/** Functions are an array of 64: each field stands here once, at its place in the first. */
const cpuidFields: ReadonlyArray<LayoutField> = [
  ...CPUID_PAGE_FIELDS,
  ...CPUID_FUNCTION_FIELDS.map(({ field, offset, size }) => ({
    field,
    offset: CPUID_FUNCTION_BASE + offset,
    size,
    count: CPUID_COUNT_MAX,
    stride: CPUID_FUNCTION_SIZE
  }))
]

/** What `vmpl-lab layout` can print, from the definitions that the code itself uses. */
export const LAYOUTS: {
  readonly [name: string]: { readonly title: string; readonly fields: ReadonlyArray<LayoutField> }
} = {
  vmsa: { title: "VMSA: save area of an SEV-ES or SEV-SNP guest", fields: VMSA_FIELDS },
  vmcb: { title: "VMCB: control area", fields: VMCB_FIELDS },
  ghcb: { title: "GHCB: page shared by guest and hypervisor", fields: GHCB_FIELDS },
  rmp: { title: "RMP entry in memory, Zen 3 and Zen 4; gpa is GPA >> 12", fields: RMP_ENTRY_FIELDS },
  rmpread: { title: "Structure that RMPREAD writes and RMPUPDATE reads", fields: RMP_STRUCT_FIELDS },
  secrets: { title: "Secrets page", fields: SECRETS_FIELDS },
  cpuid: { title: "CPUID page; a field of a function stands at its place in the first", fields: cpuidFields }
}

/** Names of the layouts, in the order of the help text. */
export const LAYOUT_NAMES: ReadonlyArray<string> = Object.keys(LAYOUTS)
