import { GHCB, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { OP, Operation, type Program, readBytes, writeBytes, writeBytesShared } from "@vmpl-lab/vmpl"

/** Copies shared memory of one page into `into`. */
export const readBytesShared = (gpa: number, into: Uint8Array): Operation =>
  new Operation(OP.READ_BYTES, gpa, 0, 0, into.length, false, into)

/** Exchange of one shared byte; the old value is the result. */
export const xchg8Shared = (gpa: number, value: number): Operation => new Operation(OP.XCHG8, gpa, value, 0, 1, false)

/** Copies between memory and `bytes`, page by page. `op` is READ_BYTES or WRITE_BYTES, `cbit` the kind of memory. */
export function* copyBytes(op: number, address: number, bytes: Uint8Array, cbit: boolean): Program {
  for (let done = 0; done < bytes.length; ) {
    const at = address + done
    const length = Math.min(bytes.length - done, PAGE_SIZE - (at % PAGE_SIZE))
    yield new Operation(op, at, 0, 0, length, cbit, bytes.subarray(done, done + length))
    done += length
  }
}

/** The shared buffer of a GHCB. */
export const sharedBuffer = (ghcbGpa: number): number => ghcbGpa + GHCB.shared_buffer

/** Saves the contents of a GHCB in a private page. */
export function* savePage(ghcbGpa: number, backup: number): Program {
  const bytes = new Uint8Array(PAGE_SIZE)
  yield readBytesShared(ghcbGpa, bytes)
  yield writeBytes(backup, bytes)
}

/** Puts them back. */
export function* restorePage(ghcbGpa: number, backup: number): Program {
  const bytes = new Uint8Array(PAGE_SIZE)
  yield readBytes(backup, bytes)
  yield writeBytesShared(ghcbGpa, bytes)
}
