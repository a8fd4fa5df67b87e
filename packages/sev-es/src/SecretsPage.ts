import { layout, offsetsOf } from "./Layout.ts"

/**
 * Secrets page built by the firmware at launch; the SVSM fields are zero until an SVSM fills them.
 * @spec SNP-ABI table "secrets page" (56860); SVSM table 1 (58019)
 */
export const SECRETS_FIELDS = layout([
  ["version", 0x000, 4],
  ["imi_en", 0x004, 4],
  ["fms", 0x008, 4],
  ["gosvw", 0x010, 16],
  ["vmpck0", 0x020, 32],
  ["vmpck1", 0x040, 32],
  ["vmpck2", 0x060, 32],
  ["vmpck3", 0x080, 32],
  ["guest_usage", 0x0a0, 96],
  ["vmsa_tweak_bitmap", 0x100, 64],
  ["svsm_base", 0x140, 8],
  ["svsm_size", 0x148, 8],
  ["svsm_caa", 0x150, 8],
  ["svsm_max_version", 0x158, 4],
  ["svsm_guest_vmpl", 0x15c, 1],
  ["tsc_factor", 0x160, 4]
])

/** Byte offsets of the secrets page fields by name. */
export const SECRETS = offsetsOf(SECRETS_FIELDS)
