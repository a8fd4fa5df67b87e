/** Security version numbers of a platform's firmware, each a byte. @spec SNP-ABI "TCB_VERSION" */
export interface TcbVersion {
  readonly bootLoader: number
  readonly tee: number
  readonly snp: number
  readonly microcode: number
  /** From Turin on; 0 when left out. */
  readonly fmc?: number
}

export const TCB_SIZE = 8

/** Where a TCB_VERSION has its components; the other bytes are spare. */
export interface TcbLayout {
  /** Null before Turin, which has none. */
  readonly fmc: number | null
  readonly bootLoader: number
  readonly tee: number
  readonly snp: number
  readonly microcode: number
}

/** Milan and Genoa. */
export const TCB: TcbLayout = { fmc: null, bootLoader: 0, tee: 1, snp: 6, microcode: 7 }
/** Turin and later. */
export const TCB_TURIN: TcbLayout = { fmc: 0, bootLoader: 1, tee: 2, snp: 3, microcode: 7 }

/** From this family on a TCB_VERSION begins with the FMC, and chip ids have 8 bytes. */
const FAMILY_TURIN = 0x1a

/** Family, model and stepping out of CPUID Fn1 EAX. @spec APM3 E.3.2 */
export const familyOf = (fms: number) => ({
  family: ((fms >> 8) & 0xf) + ((fms >> 20) & 0xff),
  model: ((fms >> 4) & 0xf) | ((fms >> 12) & 0xf0),
  stepping: fms & 0xf
})

/** Whether a processor, by its CPUID Fn1 EAX, is Turin or later. */
export const isSinceTurin = (fms: number): boolean => familyOf(fms).family >= FAMILY_TURIN

/** TCB_VERSION, 8 bytes. */
export const tcbBytes = (tcb: TcbVersion, layout: TcbLayout = TCB): Uint8Array => {
  const bytes = new Uint8Array(TCB_SIZE)
  if (layout.fmc !== null) bytes[layout.fmc] = tcb.fmc ?? 0
  bytes[layout.bootLoader] = tcb.bootLoader
  bytes[layout.tee] = tcb.tee
  bytes[layout.snp] = tcb.snp
  bytes[layout.microcode] = tcb.microcode
  return bytes
}

/** What a TCB_VERSION says; its spare bytes are not looked at. */
export const tcbOf = (bytes: Uint8Array, layout: TcbLayout = TCB): TcbVersion => ({
  ...(layout.fmc === null ? {} : { fmc: bytes[layout.fmc]! }),
  bootLoader: bytes[layout.bootLoader]!,
  tee: bytes[layout.tee]!,
  snp: bytes[layout.snp]!,
  microcode: bytes[layout.microcode]!
})

/** Whether no byte of a TCB_VERSION exceeds that of another; spare bytes are then zero, as they are in every limit. */
export const isTcbWithin = (bytes: Uint8Array, limit: Uint8Array): boolean =>
  bytes.length === TCB_SIZE && bytes.every((version, i) => version <= limit[i]!)
