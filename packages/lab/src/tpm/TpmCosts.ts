import { commandCode, createdType, framingError, TPM_ALG, TPM_CC } from "./TpmMessage.ts"

/** Virtual time of one class of commands inside of the TPM, ns. */
export interface TpmCost {
  readonly ns: number
  readonly basis: "measured"
  /** The command that was measured for it. */
  readonly command: string
}

const measured = (ns: number, command: string): TpmCost => ({ ns, basis: "measured", command })

/** Where the figures below come from, on what; `npm run bench:tpm` makes others. */
export const TPM_COSTS_SOURCE =
  "CPU time of swtpm 0.7.1 with libtpms 0.9.2 on an AMD EPYC in a VM, bench/results/tpm.json"

/**
 * What a TPM in software takes for a command, by what dominates it: rounded medians, without the way to the TPM and back.
 * The TPM of an SVSM is of the same origin as libtpms, TCG's reference code, but compiled and linked otherwise, and one
 * without persistent state has no file to write for `nv`. The time that the real TPM behind a run takes has no part in
 * it: it is another program on another machine, and equal runs would differ.
 */
export const TPM_COSTS = {
  state: measured(1_000, "TPM2_GetRandom of 16 bytes, TPM2_PCR_Extend"),
  nv: measured(130_000, "TPM2_NV_Write of 32 bytes, with swtpm's file of its state"),
  object: measured(6_000, "TPM2_ContextSave of an ECC key"),
  ecc: measured(300_000, "TPM2_Sign, P-256"),
  rsa: measured(2_000_000, "TPM2_Sign, RSA-2048"),
  "rsa key": measured(28_000_000, "TPM2_CreatePrimary, RSA-2048, mean of ten keys")
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
