// @ghcb 0x80000001, 0x80000002
import { NAE, type U64, u64 } from "@vmpl-lab/sev-es"
import { type Program, readShared, writeShared } from "@vmpl-lab/vmpl"
import type { Ghcb } from "../Ghcb.ts"
import type { Outcome } from "./Exchange.ts"
import { sharedBuffer } from "./SharedMemory.ts"

const fields = (ghcb: Ghcb, gpa: number, size: number) => ({
  info1: u64(gpa),
  info2: u64(size),
  scratch: sharedBuffer(ghcb.gpa)
})

/** MMIO read of 1, 2, 4 or 8 bytes, event 0x80000001: the data comes in the shared buffer. */
export function* mmioRead(ghcb: Ghcb, gpa: number, size: number): Program<Outcome<U64>> {
  return yield* ghcb.holding(function* (): Program<Outcome<U64>> {
    const reply = yield* ghcb.exchange(NAE.MMIO_READ, fields(ghcb, gpa, size))
    if (!reply.ok) return reply
    const { lo, hi } = yield readShared(sharedBuffer(ghcb.gpa), size)
    return { ok: true, value: { lo, hi } }
  })
}

/** MMIO write of 1, 2, 4 or 8 bytes, event 0x80000002: the data goes by the shared buffer. */
export function* mmioWrite(ghcb: Ghcb, gpa: number, size: number, value: U64): Program<Outcome<null>> {
  return yield* ghcb.holding(function* (): Program<Outcome<null>> {
    yield writeShared(sharedBuffer(ghcb.gpa), size, value.lo, value.hi)
    const reply = yield* ghcb.exchange(NAE.MMIO_WRITE, fields(ghcb, gpa, size))
    return reply.ok ? { ok: true, value: null } : reply
  })
}
