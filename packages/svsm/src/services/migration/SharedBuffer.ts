import { copyBytes, SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE, toNumber } from "@vmpl-lab/sev-es"
import { OP, type Program } from "@vmpl-lab/vmpl"
import { validRegion } from "../../GuestAddress.ts"
import { gpaOf, type SvsmRequest } from "../../protocols/Request.ts"
import type { SvsmState } from "../../State.ts"

/** Most bytes of a buffer. */
const SIZE_MAX = 0x40_0000

/** Pages that the host reads and writes. */
export interface SharedBuffer {
  readonly gpa: number
  readonly size: number
}

/** RCX and RDX as a buffer of guest RAM that nobody has validated; null where they are none. */
const sharedBuffer = (state: SvsmState, request: SvsmRequest): SharedBuffer | null => {
  const gpa = gpaOf(request.rcxLo, request.rcxHi)
  const size = toNumber(request.rdxLo, request.rdxHi)
  if (gpa % PAGE_SIZE !== 0 || size === 0 || size > SIZE_MAX || !validRegion(state, gpa, size)) return null
  for (let gfn = gpa / PAGE_SIZE; gfn * PAGE_SIZE < gpa + size; gfn++) {
    if (state.validated.has(gfn) || state.changing.has(gfn)) return null
  }
  return { gpa, size }
}

/**
 * Serves a call that has such a buffer. Meanwhile no other CPU may validate a page of it: a shared access to what has
 * become private would end the SVSM.
 */
export function* withShared(
  state: SvsmState,
  request: SvsmRequest,
  serve: (buffer: SharedBuffer) => Program<number>
): Program<number> {
  const buffer = sharedBuffer(state, request)
  if (buffer === null) return SVSM_RESULT.INVALID_ADDRESS
  const { gpa, size } = buffer
  const gfns = Array.from({ length: Math.ceil(size / PAGE_SIZE) }, (_, page) => gpa / PAGE_SIZE + page)
  for (const gfn of gfns) state.changing.add(gfn)
  try {
    return yield* serve(buffer)
  } finally {
    for (const gfn of gfns) state.changing.delete(gfn)
  }
}

/** Copies all of the buffer at once: the host may change it the moment after. */
export function* takeShared({ gpa, size }: SharedBuffer): Program<Uint8Array> {
  const bytes = new Uint8Array(size)
  yield* copyBytes(OP.READ_BYTES, gpa, bytes, false)
  return bytes
}

export const giveShared = ({ gpa }: SharedBuffer, bytes: Uint8Array): Program =>
  copyBytes(OP.WRITE_BYTES, gpa, bytes, false)
