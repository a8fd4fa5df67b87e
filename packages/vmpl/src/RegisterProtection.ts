import { SEV_FEATURES, VMSA, VMSA_STATE_SIZE, VMSA_TWEAKED } from "@vmpl-lab/sev-es"
import type { Hardware, Processor } from "./Processor.ts"

/** Offsets of the quadwords that the bitmap selects: those that the model's CPU loads and saves, and the others. */
const LOADED = VMSA_TWEAKED.filter((offset) => offset < VMSA_STATE_SIZE)
const NOT_LOADED = VMSA_TWEAKED.filter((offset) => offset >= VMSA_STATE_SIZE)

const xor = (view: DataView, offsets: ReadonlyArray<number>, nonce: bigint): void => {
  for (const at of offsets) view.setBigUint64(at, view.getBigUint64(at, true) ^ nonce, true)
}

const nonceIn = (view: DataView): bigint => view.getBigUint64(VMSA.reg_prot_nonce, true)

/** Whether a VMSA has VmsaRegProt. */
export const isProtected = (vmsa: DataView): boolean =>
  (vmsa.getUint32(VMSA.sev_features, true) & SEV_FEATURES.VmsaRegProt) !== 0

/**
 * Software's part: turns a page with VmsaRegProt from what memory has into what the registers are, and back, as XOR
 * with the page's nonce does both. A page whose nonce is 0, as one built afresh, has its registers in the clear.
 */
export const tweakVmsa = (vmsa: DataView): void => xor(vmsa, VMSA_TWEAKED, nonceIn(vmsa))

/** VMRUN of a VMSA with VmsaRegProt: the registers just loaded lose the page's nonce. */
export const unprotectRegisters = ({ view }: Processor): void => xor(view, LOADED, nonceIn(view))

/**
 * #VMEXIT of such a VMSA: its registers are saved under a fresh nonce, so that equal registers at two exits are not
 * equal ciphertext. The registers that are not modelled change from the old nonce to the new one.
 * @param page the VMSA in memory
 */
export const protectRegisters = (cpu: Processor, page: DataView): void => {
  const nonce = nextNonce(cpu.hardware)
  xor(page, NOT_LOADED, nonceIn(page) ^ nonce)
  cpu.view.setBigUint64(VMSA.reg_prot_nonce, nonce, true)
  new Uint8Array(page.buffer, page.byteOffset, VMSA_STATE_SIZE).set(cpu.registers)
  xor(page, LOADED, nonce)
}

/** State of the stream of each machine. */
const streams = new WeakMap<Hardware, bigint>()

/**
 * Next nonce of a machine: a linear congruential generator modulo 2^64 with Knuth's MMIX constants, from the machine's
 * `nonceSeed` on. A CPU draws them at random; a run of the model is to be repeatable.
 */
const nextNonce = (hardware: Hardware): bigint => {
  const last = streams.get(hardware) ?? BigInt.asUintN(64, hardware.nonceSeed ?? 0n)
  const nonce = BigInt.asUintN(64, last * 6_364_136_223_846_793_005n + 1_442_695_040_888_963_407n)
  streams.set(hardware, nonce)
  return nonce
}
