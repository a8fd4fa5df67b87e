import { xchg8Shared } from "@vmpl-lab/guest"
import { DOORBELL, DOORBELL_DESCRIPTOR, DOORBELL_STATUS } from "@vmpl-lab/sev-es"
import { type Program, writeShared } from "@vmpl-lab/vmpl"

const { SIZE, IRR, ISR } = DOORBELL_DESCRIPTOR

/** Bits of a descriptor's status by their byte, as each byte is exchanged on its own. */
const FLAGS = { AT: 1, NMI: DOORBELL_STATUS.NMI >>> 8, MULTIPLE: DOORBELL_STATUS.MULTIPLE >>> 8 } as const
const LAST = { AT: 3, VECTOR_31: DOORBELL_STATUS.VECTOR_31 >>> 24 } as const

const WORDS = 8

const descriptorOf = (doorbell: number, vmpl: number): number => doorbell + DOORBELL.vmpl1 + SIZE * (vmpl - 1)

/**
 * Takes what the host has put into a level's descriptor of the doorbell page. Each byte is exchanged, so that what the
 * host adds meanwhile is neither lost nor taken twice.
 * @spec GHCB "#HV doorbell page"
 */
export function* takeEventsBelow(doorbell: number, vmpl: number, post: (vector: number) => void): Program {
  const level = 1 << (vmpl - 1)
  const events = (yield xchg8Shared(doorbell + DOORBELL.per_vmpl_events, 0)).lo
  if ((events & level) === 0) return
  const descriptor = descriptorOf(doorbell, vmpl)
  const vector = (yield xchg8Shared(descriptor, 0)).lo
  const flags = (yield xchg8Shared(descriptor + FLAGS.AT, 0)).lo
  let last = 0
  for (let byte = FLAGS.AT + 1; byte <= LAST.AT; byte++) last = (yield xchg8Shared(descriptor + byte, 0)).lo
  if (vector !== 0) post(vector)
  if ((flags & FLAGS.MULTIPLE) === 0) return
  if ((last & LAST.VECTOR_31) !== 0) post(31)
  for (let byte = 0; byte < ISR - IRR; byte++) {
    const bits = (yield xchg8Shared(descriptor + IRR + byte, 0)).lo
    for (let bit = 0; bit < 8; bit++) if ((bits & (1 << bit)) !== 0) post(32 + 8 * byte + bit)
  }
}

/** What an emulated APIC holds, vectors as 256 bits in words. */
export interface ApicContents {
  readonly requested: Uint32Array
  readonly inService: Uint32Array
  readonly nmi: boolean
}

/**
 * Leaves in a level's descriptor what an emulated APIC holds, for the host to take over, beside what the host has put
 * there. Vectors below 31 have no place in it: they are exceptions, which no device sends.
 */
export function* describeApic(doorbell: number, vmpl: number, { requested, inService, nmi }: ApicContents): Program {
  const descriptor = descriptorOf(doorbell, vmpl)
  // First of all: from here on the host adds to the words, and no vector of its own stands alone.
  yield* orShared(descriptor + FLAGS.AT, FLAGS.MULTIPLE | (nmi ? FLAGS.NMI : 0))
  const alone = (yield xchg8Shared(descriptor, 0)).lo
  const all = Uint32Array.from(requested)
  if (alone !== 0) all[alone >> 5]! |= 1 << (alone & 31)
  if ((all[0]! & DOORBELL_STATUS.VECTOR_31) !== 0) yield* orShared(descriptor + LAST.AT, LAST.VECTOR_31)
  for (let byte = 0; byte < ISR - IRR; byte++) {
    const bits = (all[1 + (byte >> 2)]! >>> (8 * (byte & 3))) & 0xff
    if (bits !== 0) yield* orShared(descriptor + IRR + byte, bits)
  }
  for (let word = 0; word < WORDS; word++) yield writeShared(descriptor + ISR + 4 * word, 4, inService[word]!)
}

/** The host has not taken over: what was left for it is taken back, and with it what the host has added. */
export function* takeBackApic(doorbell: number, vmpl: number, post: (vector: number) => void): Program {
  for (let word = 0; word < WORDS; word++) yield writeShared(descriptorOf(doorbell, vmpl) + ISR + 4 * word, 4, 0)
  yield* orShared(doorbell + DOORBELL.per_vmpl_events, 1 << (vmpl - 1))
  yield* takeEventsBelow(doorbell, vmpl, post)
}

/** Adds bits to a byte to which the host may add others at the same time. */
function* orShared(gpa: number, bits: number): Program {
  for (let all = bits; ; ) {
    const was = (yield xchg8Shared(gpa, all)).lo
    if ((was & ~all) === 0) return
    all |= was
  }
}
