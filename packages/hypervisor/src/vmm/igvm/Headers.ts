/** Types of variable headers. @spec IGVM "variable headers" */
export const IGVM_HEADER = {
  SUPPORTED_PLATFORM: 0x001,
  GUEST_POLICY: 0x101,
  RELOCATABLE_REGION: 0x102,
  PAGE_TABLE_RELOCATION_REGION: 0x103,
  CORIM_DOCUMENT: 0x104,
  CORIM_SIGNATURE: 0x105,
  CCA_POLICY: 0x106,
  PARAMETER_AREA: 0x301,
  PAGE_DATA: 0x302,
  PARAMETER_INSERT: 0x303,
  VP_CONTEXT: 0x304,
  REQUIRED_MEMORY: 0x305,
  VP_COUNT: 0x307,
  SRAT: 0x308,
  MADT: 0x309,
  MMIO_RANGES: 0x30a,
  SNP_ID_BLOCK: 0x30b,
  MEMORY_MAP: 0x30c,
  ERROR_RANGE: 0x30d,
  COMMAND_LINE: 0x30e,
  SLIT: 0x30f,
  PPTT: 0x310,
  VBS_MEASUREMENT: 0x311,
  DEVICE_TREE: 0x312,
  ENVIRONMENT_INFO: 0x313
} as const

export type IgvmHeaderName = keyof typeof IGVM_HEADER

/** Set in the type of a header that a loader may skip where it does not know it. */
export const IGVM_OPTIONAL = 0x8000_0000

/** What the file says of a kind of header. */
export interface HeaderKind {
  readonly name: IgvmHeaderName
  /** Bytes of the body. */
  readonly size: number
  /** Where its mask of platforms is; null where it has none. */
  readonly mask: number | null
  /** Bytes of the body that must be zero. */
  readonly reserved?: ReadonlyArray<readonly [start: number, end: number]>
  /** Means nothing to SNP, or something that an SNP launch cannot do: an error where its mask names SNP. */
  readonly notForSnp?: true
}

const PARAMETER = { size: 8, mask: null } as const

/** All kinds, by type. @spec IGVM "variable headers" */
export const HEADER_KINDS: ReadonlyMap<number, HeaderKind> = new Map(
  (
    [
      { name: "SUPPORTED_PLATFORM", size: 16, mask: 0 },
      { name: "GUEST_POLICY", size: 16, mask: 8, reserved: [[12, 16]] },
      // Pages are measured with their addresses, so they cannot be moved.
      { name: "RELOCATABLE_REGION", size: 48, mask: 0, notForSnp: true },
      { name: "PAGE_TABLE_RELOCATION_REGION", size: 32, mask: 0, notForSnp: true },
      { name: "CORIM_DOCUMENT", size: 16, mask: 0 },
      { name: "CORIM_SIGNATURE", size: 16, mask: 0 },
      { name: "CCA_POLICY", size: 32, mask: 0, notForSnp: true },
      { name: "PARAMETER_AREA", size: 16, mask: null },
      { name: "PAGE_DATA", size: 24, mask: 8, reserved: [[22, 24]] },
      { name: "PARAMETER_INSERT", size: 16, mask: 8 },
      { name: "VP_CONTEXT", size: 20, mask: 8, reserved: [[18, 20]] },
      { name: "REQUIRED_MEMORY", size: 24, mask: 8, reserved: [[20, 24]] },
      { name: "VP_COUNT", ...PARAMETER },
      { name: "SRAT", ...PARAMETER },
      { name: "MADT", ...PARAMETER },
      { name: "MMIO_RANGES", ...PARAMETER },
      // Its two keys have a word after the curve that is no part of AMD's form.
      {
        name: "SNP_ID_BLOCK",
        size: 0x2b8,
        mask: 0,
        reserved: [
          [5, 8],
          [0xfc, 0x100],
          [0x224, 0x228]
        ]
      },
      { name: "MEMORY_MAP", ...PARAMETER },
      { name: "ERROR_RANGE", size: 16, mask: 8 },
      { name: "COMMAND_LINE", ...PARAMETER },
      { name: "SLIT", ...PARAMETER },
      { name: "PPTT", ...PARAMETER },
      { name: "VBS_MEASUREMENT", size: 864, mask: 0, notForSnp: true },
      { name: "DEVICE_TREE", ...PARAMETER },
      { name: "ENVIRONMENT_INFO", ...PARAMETER }
    ] as const satisfies ReadonlyArray<HeaderKind>
  ).map((kind) => [IGVM_HEADER[kind.name], kind])
)
