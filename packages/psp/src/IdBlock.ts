import { createHash, createPublicKey, type KeyObject, verify } from "node:crypto"
import { layout, offsetsOf, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { publicKeyOf, SIGNATURE_SIZE, signatureBytes, signP384 } from "./EcdsaP384.ts"
import { LAUNCH_DIGEST_SIZE } from "./LaunchDigest.ts"
import type { Status } from "./Status.ts"

/** What the guest's owner signs: which launch it expects, and under which names. @spec SNP-ABI "ID block structure" */
export const ID_BLOCK_FIELDS = layout([
  ["ld", 0x00, 48],
  ["family_id", 0x30, 16],
  ["image_id", 0x40, 16],
  ["version", 0x50, 4],
  ["guest_svn", 0x54, 4],
  ["policy", 0x58, 8]
])
export const ID_BLOCK = offsetsOf(ID_BLOCK_FIELDS)
export const ID_BLOCK_SIZE = 0x60

/** A page with keys and signatures. @spec SNP-ABI "ID authentication information structure" */
export const ID_AUTH_FIELDS = layout([
  ["id_key_algo", 0x000, 4],
  ["auth_key_algo", 0x004, 4],
  ["id_block_sig", 0x040, 512],
  ["id_key", 0x240, 0x404],
  ["id_key_sig", 0x680, 512],
  ["author_key", 0x880, 0x404]
])
export const ID_AUTH = offsetsOf(ID_AUTH_FIELDS)
export const ID_AUTH_SIZE = PAGE_SIZE

/** An ECDSA public key: curve, then X and Y little-endian. @spec SNP-ABI "public key format" */
export const PUBLIC_KEY = { curve: 0x000, qx: 0x004, qy: 0x04c, SIZE: 0x404 } as const

/** The only algorithm: ECDSA P-384 with SHA-384. */
export const ID_ALGORITHM = 1
const CURVE_P384 = 2
const COORDINATE_SIZE = 48
const COMPONENT_SIZE = 72

/** What an ID block leaves in the context, for reports and derived keys. */
export interface IdBinding {
  /** 16 bytes. */
  readonly familyId: Uint8Array
  /** 16 bytes. */
  readonly imageId: Uint8Array
  readonly svn: number
  /** SHA-384 of the ID key's 0x404 bytes. */
  readonly idKeyDigest: Uint8Array
  /** SHA-384 of the author key's 0x404 bytes; zeros without one. */
  readonly authorKeyDigest: Uint8Array
}

/** The launch as LAUNCH_FINISH compares it with the block. */
export interface IdBlockScene {
  readonly block: Uint8Array
  readonly auth: Uint8Array
  readonly hasAuthorKey: boolean
  /** LD, 48 bytes. */
  readonly digest: Uint8Array
  readonly policy: bigint
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** A number of AMD's form as big-endian bytes; null where it has more significant bytes than P-384 has. */
const component = (bytes: Uint8Array, at: number): Uint8Array | null => {
  if (bytes.subarray(at + COORDINATE_SIZE, at + COMPONENT_SIZE).some((byte) => byte !== 0)) return null
  return Uint8Array.from(bytes.subarray(at, at + COORDINATE_SIZE)).reverse()
}

/** The key in AMD's form; null for another curve or a point that is not on it. */
const readPublicKey = (bytes: Uint8Array): KeyObject | null => {
  const x = component(bytes, PUBLIC_KEY.qx)
  const y = component(bytes, PUBLIC_KEY.qy)
  if (viewOf(bytes).getUint32(PUBLIC_KEY.curve, true) !== CURVE_P384 || x === null || y === null) return null
  const text = (part: Uint8Array): string => Buffer.from(part).toString("base64url")
  try {
    return createPublicKey({ key: { kty: "EC", crv: "P-384", x: text(x), y: text(y) }, format: "jwk" })
  } catch {
    return null
  }
}

/** AMD's form of a public key, 0x404 bytes. */
export const publicKeyBytes = (key: KeyObject): Uint8Array => {
  const { x = "", y = "" } = key.export({ format: "jwk" })
  const bytes = new Uint8Array(PUBLIC_KEY.SIZE)
  viewOf(bytes).setUint32(PUBLIC_KEY.curve, CURVE_P384, true)
  bytes.set(Buffer.from(x, "base64url").reverse(), PUBLIC_KEY.qx)
  bytes.set(Buffer.from(y, "base64url").reverse(), PUBLIC_KEY.qy)
  return bytes
}

/** Whether a signature in AMD's form, 512 bytes, is one of `message`. @spec SNP-ABI "signature format" */
export const isSignedP384 = (key: KeyObject, message: Uint8Array, signature: Uint8Array): boolean => {
  const r = component(signature, 0)
  const s = component(signature, COMPONENT_SIZE)
  if (r === null || s === null) return false
  return verify("sha384", message, { key, dsaEncoding: "ieee-p1363" }, Buffer.concat([r, s]))
}

const keyAt = (auth: Uint8Array, at: number): Uint8Array => auth.subarray(at, at + PUBLIC_KEY.SIZE)
const digestOf = (bytes: Uint8Array): Uint8Array => new Uint8Array(createHash("sha384").update(bytes).digest())

/** One link: `signed` carries a signature at `signatureAt` by the key at `keyOffset`. */
const isSignedBy = (auth: Uint8Array, signed: Uint8Array, signatureAt: number, keyOffset: number): boolean => {
  const key = readPublicKey(keyAt(auth, keyOffset))
  return key !== null && isSignedP384(key, signed, auth.subarray(signatureAt, signatureAt + SIGNATURE_SIZE))
}

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i])

/** A check of LAUNCH_FINISH on the ID block; null lets it pass. */
export interface IdBlockCheck {
  readonly name: string
  readonly refuses: (scene: IdBlockScene) => Status | null
}

/**
 * The checks in the firmware's order. The block's version is not among them.
 * @spec SNP-ABI LAUNCH_FINISH
 */
export const ID_BLOCK_CHECKS: ReadonlyArray<IdBlockCheck> = [
  {
    name: "the block's digest is the launch digest",
    refuses: ({ block, digest }) =>
      sameBytes(block.subarray(ID_BLOCK.ld, ID_BLOCK.ld + LAUNCH_DIGEST_SIZE), digest) ? null : "BAD_MEASUREMENT"
  },
  {
    name: "the block's policy is the guest's",
    refuses: ({ block, policy }) =>
      viewOf(block).getBigUint64(ID_BLOCK.policy, true) === policy ? null : "POLICY_FAILURE"
  },
  {
    name: "algorithm of the ID key is ECDSA P-384",
    refuses: ({ auth }) => (viewOf(auth).getUint32(ID_AUTH.id_key_algo, true) === ID_ALGORITHM ? null : "INVALID_PARAM")
  },
  {
    name: "algorithm of the author key is ECDSA P-384",
    refuses: ({ auth, hasAuthorKey }) =>
      !hasAuthorKey || viewOf(auth).getUint32(ID_AUTH.auth_key_algo, true) === ID_ALGORITHM ? null : "INVALID_PARAM"
  },
  {
    name: "the ID key has signed the block",
    refuses: ({ auth, block }) =>
      isSignedBy(auth, block, ID_AUTH.id_block_sig, ID_AUTH.id_key) ? null : "BAD_SIGNATURE"
  },
  {
    name: "the author key has signed the ID key",
    refuses: ({ auth, hasAuthorKey }) =>
      !hasAuthorKey || isSignedBy(auth, keyAt(auth, ID_AUTH.id_key), ID_AUTH.id_key_sig, ID_AUTH.author_key)
        ? null
        : "BAD_SIGNATURE"
  }
]

/** What the block binds, or the status that refuses it. @spec SNP-ABI LAUNCH_FINISH */
export const bindIdBlock = (scene: IdBlockScene): IdBinding | Status => {
  const { block, auth, hasAuthorKey } = scene
  for (const { refuses } of ID_BLOCK_CHECKS) {
    const status = refuses(scene)
    if (status !== null) return status
  }
  return {
    familyId: block.slice(ID_BLOCK.family_id, ID_BLOCK.image_id),
    imageId: block.slice(ID_BLOCK.image_id, ID_BLOCK.version),
    svn: viewOf(block).getUint32(ID_BLOCK.guest_svn, true),
    idKeyDigest: digestOf(keyAt(auth, ID_AUTH.id_key)),
    authorKeyDigest: hasAuthorKey ? digestOf(keyAt(auth, ID_AUTH.author_key)) : new Uint8Array(LAUNCH_DIGEST_SIZE)
  }
}

/** What a guest's owner signs, and with which private keys. */
export interface IdBlockInput {
  /** LD, 48 bytes. */
  readonly digest: Uint8Array
  /** 16 bytes. */
  readonly familyId: Uint8Array
  /** 16 bytes. */
  readonly imageId: Uint8Array
  readonly svn: number
  readonly policy: bigint
  readonly idKey: bigint
  /** Signs the ID key; left out, the block stands on the ID key alone. */
  readonly authorKey?: bigint | undefined
}

const BLOCK_VERSION = 1

/** The block, 0x60 bytes, and the page with keys and signatures, 4096 bytes. Equal input gives equal bytes. */
export const signIdBlock = (input: IdBlockInput): { readonly block: Uint8Array; readonly auth: Uint8Array } => {
  const block = new Uint8Array(ID_BLOCK_SIZE)
  block.set(input.digest, ID_BLOCK.ld)
  block.set(input.familyId, ID_BLOCK.family_id)
  block.set(input.imageId, ID_BLOCK.image_id)
  viewOf(block).setUint32(ID_BLOCK.version, BLOCK_VERSION, true)
  viewOf(block).setUint32(ID_BLOCK.guest_svn, input.svn, true)
  viewOf(block).setBigUint64(ID_BLOCK.policy, input.policy, true)
  const auth = new Uint8Array(ID_AUTH_SIZE)
  const idKey = publicKeyBytes(publicKeyOf(input.idKey))
  viewOf(auth).setUint32(ID_AUTH.id_key_algo, ID_ALGORITHM, true)
  auth.set(signatureBytes(signP384(input.idKey, block)), ID_AUTH.id_block_sig)
  auth.set(idKey, ID_AUTH.id_key)
  if (input.authorKey !== undefined) {
    viewOf(auth).setUint32(ID_AUTH.auth_key_algo, ID_ALGORITHM, true)
    auth.set(signatureBytes(signP384(input.authorKey, idKey)), ID_AUTH.id_key_sig)
    auth.set(publicKeyBytes(publicKeyOf(input.authorKey)), ID_AUTH.author_key)
  }
  return { block, auth }
}
