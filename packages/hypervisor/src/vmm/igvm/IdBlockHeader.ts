import { ID_AUTH, ID_AUTH_SIZE, ID_BLOCK, ID_BLOCK_SIZE, PUBLIC_KEY } from "@vmpl-lab/psp"

/** An ID block with the page of keys and signatures, as LAUNCH_FINISH takes them. */
export interface IgvmIdBlock {
  readonly block: Uint8Array
  readonly auth: Uint8Array
  readonly authKeyEn: boolean
}

/** Fields of SNP_ID_BLOCK. Its keys have a reserved word after the curve. @spec IGVM SNP_ID_BLOCK */
const ID_HEADER = {
  mask: 0x000,
  authorKeyEnabled: 0x004,
  ld: 0x008,
  idKeyAlgorithm: 0x060,
  authorKeyAlgorithm: 0x064,
  idKeySignature: 0x068,
  idKey: 0x0f8,
  authorKeySignature: 0x190,
  authorKey: 0x220,
  SIZE: 0x2b8
} as const
const COORDINATES = 8
const SIGNATURE_PART = 144

/** What of it must be zero where no author's key is used. */
export const AUTHOR_FIELDS = { start: ID_HEADER.authorKeySignature, end: ID_HEADER.SIZE } as const
export const AUTHOR_KEY_ENABLED = ID_HEADER.authorKeyEnabled

/** AMD's structures out of IGVM's, which says neither the policy nor pads anything. */
export const readIdBlock = (body: DataView, policy: bigint): IgvmIdBlock => {
  const part = (at: number, size: number): Uint8Array => new Uint8Array(body.buffer, body.byteOffset + at, size)
  const block = new Uint8Array(ID_BLOCK_SIZE)
  block.set(part(ID_HEADER.ld, ID_HEADER.idKeyAlgorithm - ID_HEADER.ld))
  new DataView(block.buffer).setBigUint64(ID_BLOCK.policy, policy, true)
  const auth = new Uint8Array(ID_AUTH_SIZE)
  auth.set(part(ID_HEADER.idKeyAlgorithm, 4), ID_AUTH.id_key_algo)
  auth.set(part(ID_HEADER.authorKeyAlgorithm, 4), ID_AUTH.auth_key_algo)
  const signature = (from: number, to: number): void => auth.set(part(from, SIGNATURE_PART), to)
  const key = (from: number, to: number): void => {
    auth.set(part(from, 4), to)
    auth.set(part(from + COORDINATES, SIGNATURE_PART), to + PUBLIC_KEY.qx)
  }
  signature(ID_HEADER.idKeySignature, ID_AUTH.id_block_sig)
  key(ID_HEADER.idKey, ID_AUTH.id_key)
  signature(ID_HEADER.authorKeySignature, ID_AUTH.id_key_sig)
  key(ID_HEADER.authorKey, ID_AUTH.author_key)
  return { block, auth, authKeyEn: body.getUint8(ID_HEADER.authorKeyEnabled) !== 0 }
}

/** The body of a SNP_ID_BLOCK header out of AMD's structures. Its policy is the file's GUEST_POLICY. */
export const writeIdBlock = ({ block, auth, authKeyEn }: IgvmIdBlock, mask: number): Uint8Array => {
  const body = new Uint8Array(ID_HEADER.SIZE)
  new DataView(body.buffer).setUint32(ID_HEADER.mask, mask, true)
  body[ID_HEADER.authorKeyEnabled] = authKeyEn ? 1 : 0
  body.set(block.subarray(0, ID_BLOCK.policy), ID_HEADER.ld)
  const part = (from: number, size: number, to: number): void => body.set(auth.subarray(from, from + size), to)
  const key = (from: number, to: number): void => {
    part(from, 4, to)
    part(from + PUBLIC_KEY.qx, SIGNATURE_PART, to + COORDINATES)
  }
  part(ID_AUTH.id_key_algo, 4, ID_HEADER.idKeyAlgorithm)
  part(ID_AUTH.id_block_sig, SIGNATURE_PART, ID_HEADER.idKeySignature)
  key(ID_AUTH.id_key, ID_HEADER.idKey)
  if (!authKeyEn) return body
  part(ID_AUTH.auth_key_algo, 4, ID_HEADER.authorKeyAlgorithm)
  part(ID_AUTH.id_key_sig, SIGNATURE_PART, ID_HEADER.authorKeySignature)
  key(ID_AUTH.author_key, ID_HEADER.authorKey)
  return body
}
