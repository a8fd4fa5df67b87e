import { createPublicKey } from "node:crypto"
import { modulusOf, testKey } from "./TestKeys.ts"

/** TPM_ALG identifiers in the template. @spec TPM2-PART2 6.3 */
const ALGORITHM = { RSA: 0x0001, AES: 0x0006, SHA256: 0x000b, NULL: 0x0010, CFB: 0x0043 } as const

/** fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt. @spec TPM2-PART2 8.3 */
const EK_ATTRIBUTES = 0x0003_00b2

/** PolicySecret(TPM_RH_ENDORSEMENT), the policy of the TCG's templates. @spec TCG-EK "Template L-1" */
const EK_POLICY = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"

const KEY_BITS = 2048
const AES_BITS = 128

/**
 * TPMT_PUBLIC of an EK by the TCG's RSA-2048 template, big-endian as all of TPM 2.0.
 *
 * @param modulus 256 bytes; zeros in the template that a TPM makes the key from
 */
const endorsementPublic = (modulus: Uint8Array): Uint8Array => {
  const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff])
  const u32 = (value: number): Buffer => Buffer.concat([u16(value >>> 16), u16(value & 0xffff)])
  const sized = (bytes: Uint8Array): Buffer => Buffer.concat([u16(bytes.length), bytes])
  return new Uint8Array(
    Buffer.concat([
      u16(ALGORITHM.RSA),
      u16(ALGORITHM.SHA256),
      u32(EK_ATTRIBUTES),
      sized(Buffer.from(EK_POLICY, "hex")),
      u16(ALGORITHM.AES),
      u16(AES_BITS),
      u16(ALGORITHM.CFB),
      u16(ALGORITHM.NULL),
      u16(KEY_BITS),
      // The default exponent, 65537.
      u32(0),
      sized(modulus)
    ])
  )
}

/** The template of the TCG, from which a TPM makes its EK. @spec TCG-EK "Template L-1" */
export const endorsementTemplate = (): Uint8Array => endorsementPublic(new Uint8Array(KEY_BITS / 8))

/** An EK of the project's own: it stands for a TPM's where there is none, and everybody can decrypt under it. */
export const testEndorsementPublic = (): Uint8Array => endorsementPublic(modulusOf(createPublicKey(testKey("EK"))))
