import { commandCode, createdType, framingError, TPM_ALG, TPM_CC } from "./TpmMessage.ts"

/** Virtual time of one class of commands inside of the TPM, ns. */
export interface TpmCost {
  readonly ns: number
  readonly basis: "assumed"
  readonly source: string
}

const assumed = (ns: number, source: string): TpmCost => ({ ns, basis: "assumed", source })

/**
 * What a TPM in software takes for a command on one core of a server, by what dominates it. All are
 * assumed, guesses of an order of magnitude: none was measured for this project or taken from a source. The time that the real TPM behind a
 * run takes has no part in it: it is another program on another machine, and equal runs would differ.
 */
export const TPM_COSTS = {
  state: assumed(5_000, "parsing, a session and a few hashes"),
  nv: assumed(20_000, "a write of the non-volatile state to memory"),
  object: assumed(60_000, "an object's sensitive area is decrypted or encrypted, with its integrity"),
  ecc: assumed(150_000, "one P-256 multiplication or signature, without the library's fastest code"),
  rsa: assumed(1_500_000, "one RSA-2048 operation with the private key"),
  "rsa key": assumed(100_000_000, "two primes of 1024 bits, mean")
} as const
export type TpmCostClass = keyof typeof TPM_COSTS

const CLASS_OF: ReadonlyMap<number, TpmCostClass> = new Map<number, TpmCostClass>([
  ...[TPM_CC.NV_DefineSpace, TPM_CC.NV_UndefineSpace, TPM_CC.NV_Write, TPM_CC.NV_Increment, TPM_CC.NV_Extend].map(
    (code) => [code, "nv"] as const
  ),
  ...[TPM_CC.Clear, TPM_CC.EvictControl].map((code) => [code, "nv"] as const),
  ...[TPM_CC.Load, TPM_CC.Unseal, TPM_CC.ContextLoad, TPM_CC.ContextSave, TPM_CC.Import].map(
    (code) => [code, "object"] as const
  ),
  ...[TPM_CC.ECDH_KeyGen, TPM_CC.ECDH_ZGen].map((code) => [code, "ecc"] as const),
  ...[TPM_CC.Quote, TPM_CC.Sign, TPM_CC.Certify, TPM_CC.RSA_Decrypt, TPM_CC.ActivateCredential].map(
    (code) => [code, "rsa"] as const
  )
])

const CREATES: ReadonlyArray<number> = [TPM_CC.CreatePrimary, TPM_CC.Create, TPM_CC.CreateLoaded]

/** Signatures count as RSA: which key a handle stands for is the TPM's to know. */
export const costClass = (command: Uint8Array): TpmCostClass => {
  if (framingError(command) !== null) return "state"
  const code = commandCode(command)
  if (!CREATES.includes(code)) return CLASS_OF.get(code) ?? "state"
  const type = createdType(command)
  if (type === TPM_ALG.RSA) return "rsa key"
  return type === TPM_ALG.ECC ? "ecc" : "object"
}

/** Virtual ns that the TPM works on a command. */
export const tpmNs = (command: Uint8Array): number => TPM_COSTS[costClass(command)].ns
