import { hash } from "node:crypto"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"

/** Page types of LAUNCH_UPDATE. @spec SNP-ABI LAUNCH_UPDATE, "encodings for the PAGE_TYPE field" */
export const PAGE_TYPE = { NORMAL: 1, VMSA: 2, ZERO: 3, UNMEASURED: 4, SECRETS: 5, CPUID: 6 } as const

/** Permission bytes of VMPL1, VMPL2, VMPL3: bit 0 read, 1 write, 2 user execute, 3 supervisor execute, 4 SSS. */
export type VmplPerms = readonly [vmpl1: number, vmpl2: number, vmpl3: number]

/** Bytes of a launch digest: one SHA-384 value. */
export const LAUNCH_DIGEST_SIZE = 48

/**
 * PAGE_INFO, the 0x70 bytes hashed for every 4 KiB page. The permission bytes stand in the firmware's order; tools that
 * write them the other way round agree with it only because known VMMs launch with all of them zero.
 * @spec SNP-ABI LAUNCH_UPDATE, structure PAGE_INFO
 */
const PAGE_INFO = {
  DIGEST_CUR: 0x00,
  CONTENTS: 0x30,
  LENGTH: 0x60,
  PAGE_TYPE: 0x62,
  IMI_PAGE: 0x63,
  VMPL1_PERMS: 0x65,
  VMPL2_PERMS: 0x66,
  VMPL3_PERMS: 0x67,
  GPA: 0x68,
  SIZE: 0x70
} as const

const NO_PERMS: VmplPerms = [0, 0, 0]

/** The TSC scale and offset of a VMSA, 0x2F0 to 0x2FF: the firmware fills them, so they are measured as zero. */
const TSC_FIELDS_SIZE = 16

/** Bytes that enter PAGE_INFO.CONTENTS, or null when the type is measured as 48 zero bytes. */
const measuredBytes = (type: number, contents: Uint8Array | null): Uint8Array | null => {
  if (type !== PAGE_TYPE.NORMAL && type !== PAGE_TYPE.VMSA) return null
  if (contents?.length !== PAGE_SIZE) throw new Error(`LaunchDigest: page type ${type} needs ${PAGE_SIZE} bytes`)
  return type === PAGE_TYPE.VMSA
    ? contents.slice().fill(0, VMSA.guest_tsc_scale, VMSA.guest_tsc_scale + TSC_FIELDS_SIZE)
    : contents
}

/**
 * The launch digest LD: 48 bytes that start as zero and become SHA-384 of PAGE_INFO with every 4 KiB page.
 * IMI pages (migration images) have a second chain, IMD, of the same form.
 * @spec SNP-ABI LAUNCH_UPDATE, "launch digest"
 */
export class LaunchDigest {
  /** PAGE_INFO of the next step; its first 48 bytes are LD itself. */
  readonly #pageInfo = new Uint8Array(PAGE_INFO.SIZE)
  readonly #view = new DataView(this.#pageInfo.buffer)

  /** A copy of LD, 48 bytes. */
  get value(): Uint8Array {
    return this.#pageInfo.slice(PAGE_INFO.DIGEST_CUR, PAGE_INFO.DIGEST_CUR + LAUNCH_DIGEST_SIZE)
  }

  /**
   * Adds one 4 KiB page. `gpa` in bytes; `contents` matter for NORMAL and VMSA only, which need 4096 of them (throws
   * otherwise: a caller that measures a page it does not have is a bug). A 2 MiB page is 512 calls.
   */
  update(
    type: number,
    gpa: number,
    contents: Uint8Array | null,
    vmplPerms: VmplPerms = NO_PERMS,
    isImiPage = false
  ): void {
    const info = this.#pageInfo
    const measured = measuredBytes(type, contents)
    if (measured === null) info.fill(0, PAGE_INFO.CONTENTS, PAGE_INFO.LENGTH)
    else info.set(hash("sha384", measured, "buffer"), PAGE_INFO.CONTENTS)
    this.#view.setUint16(PAGE_INFO.LENGTH, PAGE_INFO.SIZE, true)
    info[PAGE_INFO.PAGE_TYPE] = type
    info[PAGE_INFO.IMI_PAGE] = isImiPage ? 1 : 0
    info[PAGE_INFO.VMPL1_PERMS] = vmplPerms[0]
    info[PAGE_INFO.VMPL2_PERMS] = vmplPerms[1]
    info[PAGE_INFO.VMPL3_PERMS] = vmplPerms[2]
    this.#view.setBigUint64(PAGE_INFO.GPA, BigInt(gpa), true)
    info.set(hash("sha384", info, "buffer"), PAGE_INFO.DIGEST_CUR)
  }
}
