import { DOORBELL, DOORBELL_FLAG } from "@vmpl-lab/sev-es"
import { type Program, readShared, writeShared } from "@vmpl-lab/vmpl"
import { xchg8Shared } from "./ghcb/SharedMemory.ts"

/** What the #HV handler of one vCPU needs. */
export interface HvContext {
  /** GPA of the doorbell page, which is shared. */
  readonly doorbell: number
  readonly onVector: (vector: number) => Program
  readonly onNmi: () => Program
  readonly onMachineCheck: () => Program
  /** Whether an interrupt may be taken now; one that may not stays in the page for a later call of the handler. */
  readonly accepts?: (vector: number) => boolean
}

/** Vectors below are exceptions, which do not come by the doorbell. */
const FIRST_INTERRUPT = 32

/**
 * The #HV handler of restricted injection. NoFurtherSignal goes first: what comes after that rings again, and nothing
 * is lost between the last look and the return. A ring during the handler makes it look once more instead of running
 * twice.
 * @spec APM2 15.36.16; GHCB "#HV doorbell page"
 */
export const makeHvHandler = (context: HvContext): (() => Program) => {
  const { doorbell, onVector, onNmi, onMachineCheck } = context
  let active = false
  let rang = false
  return function* () {
    rang = true
    if (active) return
    active = true
    try {
      while (rang) {
        rang = false
        const flags = (yield xchg8Shared(doorbell + DOORBELL.flags, 0)).lo
        if ((flags & DOORBELL_FLAG.MC) !== 0) yield* onMachineCheck()
        if ((flags & DOORBELL_FLAG.NMI) !== 0) yield* onNmi()
        const vector = yield* takeVector(context)
        if (vector !== 0) yield* onVector(vector)
        if (vector !== 0 || (flags & (DOORBELL_FLAG.MC | DOORBELL_FLAG.NMI)) !== 0) rang = true
      }
    } finally {
      active = false
    }
  }
}

/** Takes the pending vector out of the page; 0 for none, for one that has to wait, and for what is no interrupt. */
function* takeVector({ doorbell, accepts = () => true }: HvContext): Program<number> {
  const at = doorbell + DOORBELL.pending_vector
  const seen = (yield readShared(at, 1)).lo
  if (seen === 0 || (seen >= FIRST_INTERRUPT && !accepts(seen))) return 0
  const taken = (yield xchg8Shared(at, 0)).lo
  if (taken < FIRST_INTERRUPT) return 0
  if (accepts(taken)) return taken
  // Another one than was seen: it waits in the page, which takes no new one meanwhile.
  yield writeShared(at, 1, taken)
  return 0
}
