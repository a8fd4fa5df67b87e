import { EFI_STATUS } from "@vmpl-lab/guest"
import { GUID_SIZE, guidBytes, guidText, layout, offsetsOf } from "@vmpl-lab/sev-es"

/** EFI_SIGNATURE_LIST. Source: UEFI 2.10, 32.4.1 */
export const SIGNATURE_LIST_FIELDS = layout([
  ["type", 0, 16],
  ["list_size", 16, 4],
  ["header_size", 20, 4],
  ["signature_size", 24, 4]
])
export const SIGNATURE_LIST = { ...offsetsOf(SIGNATURE_LIST_FIELDS), SIZE: 28 } as const

/** Kinds of signatures. Source: EDK2, MdePkg.dec */
export const SIGNATURE_TYPE = {
  SHA256: "c1c41626-504c-4092-aca9-41f936934328",
  SHA384: "ff3e5307-9fd0-48c9-85f1-8ad56c701e01",
  SHA512: "093e0fae-a6c4-4f50-9f1b-d41e2b89c19a",
  RSA2048: "3c5766e8-269c-4e34-aa14-ed776e85b3b6",
  X509: "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
} as const

/** Bytes of a signature behind its owner's GUID; null for any. */
const DATA_SIZE: { readonly [type: string]: number | null } = {
  [SIGNATURE_TYPE.SHA256]: 32,
  [SIGNATURE_TYPE.SHA384]: 48,
  [SIGNATURE_TYPE.SHA512]: 64,
  [SIGNATURE_TYPE.RSA2048]: 256,
  [SIGNATURE_TYPE.X509]: null
}

/** Lists one behind the other; each signature is the owner's GUID and the data. */
export interface SignatureList {
  readonly type: string
  /** The list's own header, and what describes its signatures. */
  readonly header: Uint8Array
  readonly signatures: ReadonlyArray<Uint8Array>
}

/** Reads lists up to the end of the bytes; null where they are none. */
export const signatureLists = (bytes: Uint8Array): ReadonlyArray<SignatureList> | null => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const lists: Array<SignatureList> = []
  for (let at = 0; at < bytes.length; ) {
    if (bytes.length - at < SIGNATURE_LIST.SIZE) return null
    const listSize = view.getUint32(at + SIGNATURE_LIST.list_size, true)
    const headerSize = view.getUint32(at + SIGNATURE_LIST.header_size, true)
    const size = view.getUint32(at + SIGNATURE_LIST.signature_size, true)
    const first = SIGNATURE_LIST.SIZE + headerSize
    if (listSize > bytes.length - at || first > listSize || size <= GUID_SIZE) return null
    if ((listSize - first) % size !== 0) return null
    const signatures = Array.from({ length: (listSize - first) / size }, (_, i) =>
      bytes.slice(at + first + i * size, at + first + (i + 1) * size)
    )
    lists.push({ type: guidText(bytes, at), header: bytes.slice(at, at + first), signatures })
    at += listSize
  }
  return lists
}

/** What is wrong with the content of a signature database, as a status. @param most signatures that it may have */
export const signatureDatabaseStatus = (bytes: Uint8Array, most: number): number => {
  const lists = signatureLists(bytes)
  if (lists === null) return EFI_STATUS.INVALID_PARAMETER
  const isGood = lists.every(({ type, header, signatures }) => {
    if (!Object.hasOwn(DATA_SIZE, type) || header.length !== SIGNATURE_LIST.SIZE) return false
    const size = DATA_SIZE[type]
    return size === null || signatures.every(({ length }) => length === GUID_SIZE + size!)
  })
  const count = lists.reduce((sum, { signatures }) => sum + signatures.length, 0)
  return isGood && count <= most ? EFI_STATUS.SUCCESS : EFI_STATUS.INVALID_PARAMETER
}

/** The certificates of a database, DER. */
export const certificatesIn = (bytes: Uint8Array): ReadonlyArray<Uint8Array> =>
  (signatureLists(bytes) ?? [])
    .filter(({ type }) => type === SIGNATURE_TYPE.X509)
    .flatMap(({ signatures }) => signatures.map((signature) => signature.slice(GUID_SIZE)))

/** A list of signatures of one kind and size, all of one owner, as its bytes. @param owner GUID as text */
export const signatureListBytes = (type: string, owner: string, signatures: ReadonlyArray<Uint8Array>): Uint8Array => {
  const size = GUID_SIZE + (signatures[0]?.length ?? 0)
  const bytes = new Uint8Array(SIGNATURE_LIST.SIZE + size * signatures.length)
  const view = new DataView(bytes.buffer)
  bytes.set(guidBytes(type), SIGNATURE_LIST.type)
  view.setUint32(SIGNATURE_LIST.list_size, bytes.length, true)
  view.setUint32(SIGNATURE_LIST.signature_size, size, true)
  for (const [i, signature] of signatures.entries()) {
    const at = SIGNATURE_LIST.SIZE + i * size
    bytes.set(guidBytes(owner), at)
    bytes.set(signature, at + GUID_SIZE)
  }
  return bytes
}

const isEqual = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

/** What of `added` is not in `database` yet, as lists again: appending it makes no signature twice. */
export const newSignatures = (database: Uint8Array, added: Uint8Array): Uint8Array => {
  const known = signatureLists(database) ?? []
  const parts = (signatureLists(added) ?? []).flatMap(({ type, header, signatures }) => {
    const had = known.filter((list) => list.type === type).flatMap((list) => list.signatures)
    const fresh = signatures.filter((signature) => !had.some((one) => isEqual(one, signature)))
    if (fresh.length === 0) return []
    const head = header.slice()
    const size = fresh.reduce((sum, { length }) => sum + length, head.length)
    new DataView(head.buffer).setUint32(SIGNATURE_LIST.list_size, size, true)
    return [head, ...fresh]
  })
  return Uint8Array.from(Buffer.concat(parts))
}
