import type { MessageScene } from "./MessageScene.ts"
import type { EndorsementKey } from "./PlatformIdentity.ts"

/** KEY_SEL of report and key requests; 3 is reserved. @spec SNP-ABI MSG_REPORT_REQ, MSG_KEY_REQ */
export const KEY_SELECT = { VLEK_OR_VCEK: 0, VCEK: 1, VLEK: 2 } as const

/** The key that a request gets, or null: INVALID_KEY. Whether the chip's key is masked is not looked at here. */
export const selectedKey = ({ platform, guest }: MessageScene, select: number): EndorsementKey | null => {
  const { vlekLoaded } = platform
  const vcek = guest.vcekDis ? null : "VCEK"
  switch (select) {
    case KEY_SELECT.VLEK_OR_VCEK:
      return vlekLoaded ? "VLEK" : vcek
    case KEY_SELECT.VCEK:
      return vcek
    case KEY_SELECT.VLEK:
      return vlekLoaded ? "VLEK" : null
    default:
      return null
  }
}
