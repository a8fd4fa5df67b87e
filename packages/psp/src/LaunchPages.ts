import {
  CPUID_COUNT_MAX,
  CPUID_FUNCTION_BASE,
  CPUID_PAGE,
  PAGE_SIZE,
  SECRETS,
  SEV_FEATURES,
  VMSA,
  VMSA_TWEAK_BITMAP,
  VMSA_TWEAKED
} from "@vmpl-lab/sev-es"
import type { GuestContext } from "./GuestContext.ts"

/** Version that firmware 1.55 writes into the secrets page. */
const SECRETS_VERSION = 3

/** TSC factor: 0.2 % scaled by 100000, the value of firmware 1.55 on Genoa. */
export const TSC_FACTOR = 200

/**
 * The secrets page that the guest finds after launch, 4096 bytes. `fms` is the processor's family, model and stepping
 * in the form of CPUID Fn1 EAX.
 * @spec SNP-ABI LAUNCH_UPDATE, "secrets page"
 */
export const secretsPage = (guest: GuestContext, fms: number): Uint8Array => {
  const page = new Uint8Array(PAGE_SIZE)
  const view = new DataView(page.buffer)
  view.setUint32(SECRETS.version, SECRETS_VERSION, true)
  view.setUint32(SECRETS.imi_en, guest.imiEn ? 1 : 0, true)
  view.setUint32(SECRETS.fms, fms, true)
  page.set(guest.gosvw, SECRETS.gosvw)
  page.set(guest.vmpck[0], SECRETS.vmpck0)
  page.set(guest.vmpck[1], SECRETS.vmpck1)
  page.set(guest.vmpck[2], SECRETS.vmpck2)
  page.set(guest.vmpck[3], SECRETS.vmpck3)
  page.set(VMSA_TWEAK_BITMAP, SECRETS.vmsa_tweak_bitmap)
  view.setUint32(SECRETS.tsc_factor, TSC_FACTOR, true)
  return page
}

/**
 * What a measured VMSA becomes before it is encrypted: under VmsaRegProt its registers are XORed with a nonce, and the
 * place of the integrity value says that an SNP guest has none. Nobody but the firmware and the guest knows the nonce.
 * Under SecureTSC the frequency is the guest's own, whatever the host wrote; otherwise scale and offset stay the host's.
 * @param nonce 8 bytes
 * @param tscScale GUEST_TSC_SCALE of the guest's frequency
 * @spec SNP-ABI LAUNCH_UPDATE
 */
export const launchedVmsa = (measured: Uint8Array, nonce: bigint, tscScale = 0n): Uint8Array => {
  const page = measured.slice()
  const view = new DataView(page.buffer)
  if ((view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.VmsaRegProt) !== 0) {
    view.setBigUint64(VMSA.reg_prot_nonce, nonce, true)
    for (const at of VMSA_TWEAKED) view.setBigUint64(at, view.getBigUint64(at, true) ^ nonce, true)
  }
  if ((view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.SecureTSC) !== 0) {
    view.setBigUint64(VMSA.guest_tsc_scale, tscScale, true)
    view.setBigUint64(VMSA.guest_tsc_offset, 0n, true)
  }
  view.setBigUint64(INTEGRITY_FLAGS, 0n, true)
  view.setBigUint64(VMSA.checksum_pa, NO_CHECKSUM, true)
  return page
}

/** Quadword before the checksum's address. */
const INTEGRITY_FLAGS = 0x380
const NO_CHECKSUM = 0xffff_ffff_ffff_ffffn

/**
 * Whether a CPUID page has the form of one: at most 64 functions and reserved header bytes of zero; false is
 * INVALID_PARAM. Its values are policed apart from that, see `policedCpuid`.
 */
export const cpuidPageAccepted = (page: Uint8Array): boolean => {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength)
  if (view.getUint32(CPUID_PAGE.count, true) > CPUID_COUNT_MAX) return false
  return page.subarray(CPUID_PAGE.reserved1, CPUID_FUNCTION_BASE).every((byte) => byte === 0)
}
