import { xchg8Shared } from "@vmpl-lab/guest"
import { DOORBELL } from "@vmpl-lab/sev-es"
import { type Program, readShared } from "@vmpl-lab/vmpl"

/** A level's descriptor: status with vector and flags, then one bit for each vector from 32 on. */
const DESCRIPTOR = { SIZE: 64, FLAGS: 1, IRR: 4, IRR_BYTES: 28, FIRST_VECTOR: 32 } as const

/** Of the status' second byte: more vectors than the one in the first. */
const MULTIPLE = 1 << 6

/** Of the status' last byte: vector 31, for which the bits behind it have no place. */
const VECTOR_31 = 1 << 7

/**
 * Takes what the host has put into a level's descriptor of the doorbell page. Each byte is exchanged, so that what the
 * host adds meanwhile is neither lost nor taken twice.
 * @spec GHCB "#HV doorbell page"
 */
export function* takeEventsBelow(doorbell: number, vmpl: number, post: (vector: number) => void): Program {
  const level = 1 << (vmpl - 1)
  const events = (yield xchg8Shared(doorbell + DOORBELL.per_vmpl_events, 0)).lo
  if ((events & level) === 0) return
  const descriptor = doorbell + DOORBELL.vmpl1 + DESCRIPTOR.SIZE * (vmpl - 1)
  const flags = (yield readShared(descriptor + DESCRIPTOR.FLAGS, 1)).lo
  const vector = (yield xchg8Shared(descriptor, 0)).lo
  let last = 0
  for (let byte = DESCRIPTOR.FLAGS; byte < DESCRIPTOR.IRR; byte++) last = (yield xchg8Shared(descriptor + byte, 0)).lo
  if (vector !== 0) post(vector)
  if ((flags & MULTIPLE) === 0) return
  if ((last & VECTOR_31) !== 0) post(31)
  for (let byte = 0; byte < DESCRIPTOR.IRR_BYTES; byte++) {
    const bits = (yield xchg8Shared(descriptor + DESCRIPTOR.IRR + byte, 0)).lo
    for (let bit = 0; bit < 8; bit++) {
      if ((bits & (1 << bit)) !== 0) post(DESCRIPTOR.FIRST_VECTOR + 8 * byte + bit)
    }
  }
}
