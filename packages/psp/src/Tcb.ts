/** Security version numbers of a platform's firmware, each a byte. @spec SNP-ABI "TCB_VERSION" */
export interface TcbVersion {
  readonly bootLoader: number
  readonly tee: number
  readonly snp: number
  readonly microcode: number
}

/** Byte offsets in a TCB_VERSION of Milan and Genoa; bytes 2 to 5 are spare. */
export const TCB = { bootLoader: 0, tee: 1, snp: 6, microcode: 7 } as const
export const TCB_SIZE = 8

/** TCB_VERSION, 8 bytes. */
export const tcbBytes = (tcb: TcbVersion): Uint8Array => {
  const bytes = new Uint8Array(TCB_SIZE)
  bytes[TCB.bootLoader] = tcb.bootLoader
  bytes[TCB.tee] = tcb.tee
  bytes[TCB.snp] = tcb.snp
  bytes[TCB.microcode] = tcb.microcode
  return bytes
}

/** Whether no byte of a TCB_VERSION exceeds that of another; spare bytes are then zero, as they are in every limit. */
export const isTcbWithin = (bytes: Uint8Array, limit: TcbVersion): boolean => {
  const most = tcbBytes(limit)
  return bytes.length === TCB_SIZE && bytes.every((version, i) => version <= most[i]!)
}
