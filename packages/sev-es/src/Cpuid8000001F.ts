// @section 1.4, 4.4
/** EAX of CPUID 8000_001F, by bit. @spec APM2 CPUID 8000_001F EAX */
export const SEV_CAPABILITY_BITS = [
  "SME",
  "SEV",
  "PageFlushMsr",
  "SEV-ES",
  "SNP",
  "VMPL",
  "RMPQUERY",
  "VmplSSS",
  "SecureTSC",
  "TscAuxVirtualization",
  "HwEnfCacheCoh",
  "64BitHost",
  "RestrictedInjection",
  "AlternateInjection",
  "DebugSwap",
  "PreventHostIBS",
  "VTE",
  "VmgexitParameter",
  "VirtualTomMsr",
  "IbsVirtualization",
  "PmcVirtualization",
  "RMPREAD",
  "GuestInterceptCtl",
  "SegmentedRMP",
  "VmsaRegProt",
  "SmtProtection",
  "SecureAVIC",
  "AllowedSevFeatures",
  "SvsmCommPageMsr",
  "NestedVirtSnpMsr",
  "HvInUseWrAllowed",
  "IbpbOnEntry"
] as const

export type SevCapability = (typeof SEV_CAPABILITY_BITS)[number]

/** What CPUID 8000_001F says of a processor. */
export interface SevCapabilities {
  readonly has: ReadonlySet<SevCapability>
  /** EBX 5:0. */
  readonly cbitPosition: number
  /** EBX 11:6. */
  readonly physicalAddressReduction: number
  /** EBX 15:12. */
  readonly numVmpls: number
  /** EBX 31: no stale lines after a change of the C-bit. */
  readonly coherencySfwNo: boolean
  /** ECX: encrypted guests at a time, which is the highest ASID. */
  readonly guests: number
  /** EDX: the first ASID that a guest without SEV-ES may have. */
  readonly minSevNoEsAsid: number
}

export type CpuidRegisters = readonly [eax: number, ebx: number, ecx: number, edx: number]

export const encodeSevCapabilities = (capabilities: SevCapabilities): CpuidRegisters => {
  const { has, cbitPosition, physicalAddressReduction, numVmpls, coherencySfwNo, guests, minSevNoEsAsid } = capabilities
  const eax = SEV_CAPABILITY_BITS.reduce((bits, name, bit) => bits | (has.has(name) ? 1 << bit : 0), 0)
  const ebx =
    (cbitPosition & 0x3f) |
    ((physicalAddressReduction & 0x3f) << 6) |
    ((numVmpls & 0xf) << 12) |
    (coherencySfwNo ? 1 << 31 : 0)
  return [eax >>> 0, ebx >>> 0, guests >>> 0, minSevNoEsAsid >>> 0]
}

export const decodeSevCapabilities = ([eax, ebx, ecx, edx]: CpuidRegisters): SevCapabilities => ({
  has: new Set(SEV_CAPABILITY_BITS.filter((_, bit) => (eax & (1 << bit)) !== 0)),
  cbitPosition: ebx & 0x3f,
  physicalAddressReduction: (ebx >>> 6) & 0x3f,
  numVmpls: (ebx >>> 12) & 0xf,
  coherencySfwNo: (ebx & (1 << 31)) !== 0,
  guests: ecx,
  minSevNoEsAsid: edx
})

/** What CPUID 8000_0025 says of the RMP. @spec APM2 15.36.22 */
export interface RmpCapabilities {
  /** EAX 5:0 and 11:6: segment sizes as powers of two. */
  readonly minSegmentShift: number
  readonly maxSegmentShift: number
  /** EBX 9:0. */
  readonly cachedSegments: number
  /** EBX 10: no more segments than are cached. */
  readonly cachedSegmentsAreLimit: boolean
  /** EDX 0 and 2. */
  readonly rmpopt: boolean
  readonly rmpDirty: boolean
}

export const encodeRmpCapabilities = (rmp: RmpCapabilities): CpuidRegisters => [
  (rmp.minSegmentShift & 0x3f) | ((rmp.maxSegmentShift & 0x3f) << 6),
  (rmp.cachedSegments & 0x3ff) | (rmp.cachedSegmentsAreLimit ? 0x400 : 0),
  0,
  (rmp.rmpopt ? 1 : 0) | (rmp.rmpDirty ? 4 : 0)
]

export const decodeRmpCapabilities = ([eax, ebx, , edx]: CpuidRegisters): RmpCapabilities => ({
  minSegmentShift: eax & 0x3f,
  maxSegmentShift: (eax >>> 6) & 0x3f,
  cachedSegments: ebx & 0x3ff,
  cachedSegmentsAreLimit: (ebx & 0x400) !== 0,
  rmpopt: (edx & 1) !== 0,
  rmpDirty: (edx & 4) !== 0
})
