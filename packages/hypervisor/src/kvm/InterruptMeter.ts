/** Where a vector comes from and whose it is: what makes an interrupt recognisable from its source to its handler. */
export interface InterruptTag {
  readonly source: string
  /** Level that the interrupt is meant for. */
  readonly vmpl: number
}

/** What became of the interrupts of one source for one level. Latencies are virtual ns from the source to the handler. */
export class InterruptTotals {
  /** Raised by the source, whatever came of it. */
  raised = 0
  /** No local APIC took it. */
  refused = 0
  /** Requested again before it was taken: the architecture makes one of two. */
  merged = 0
  /** Requested while another level ran on its vCPU. */
  delayed = 0
  /** Its handler ran, at its own level. */
  delivered = 0
  /** A handler at another level took it. */
  misdelivered = 0
  /** At the end it still stood in the local APIC. */
  pending = 0
  /** At the end it stood nowhere, and no handler has run for it. */
  lost = 0
  /** Of those delivered at their own level while that level ran when they were raised, and while it did not. */
  readonly directNs: Array<number> = []
  readonly delayedNs: Array<number> = []
}

/** An interrupt between its source and its handler. */
interface Underway {
  readonly sequence: number
  readonly raisedAt: number
  readonly delayed: boolean
  /** Out of the local APIC: on its way into the guest, or with software at another level. */
  taken: boolean
}

/** The interrupts of one vector on one guest vCPU. */
class VectorLog {
  readonly underway: Array<Underway> = []
  /** Number of the latest interrupt. */
  sequence = 0
  /** Interrupts that were taken to be made one with another outside of the local APIC. */
  mergedOutside = 0
}

/** Vectors that one guest vCPU (one APIC ID) uses, and the level that it ran last. */
class VcpuInterrupts {
  vmpl = -1
  readonly vectors = new Map<number, VectorLog>()
}

/**
 * Measures interrupts on the hardware's own events: from the moment a device, a timer or another vCPU raises one to the
 * first instruction of a handler, and at which level that is. What runs when is told by VMRUN. Each vector belongs to
 * one source and one level, and each interrupt of it on a vCPU has a number.
 */
export class InterruptMeter {
  readonly #tags: ReadonlyMap<number, InterruptTag>
  readonly #vcpus = new Map<number, VcpuInterrupts>()
  readonly totals = new Map<InterruptTag, InterruptTotals>()
  /** Observer of each handler's begin: for traces and tests. */
  onDelivered:
    | ((interrupt: {
        readonly apicId: number
        readonly vmpl: number
        readonly vector: number
        readonly sequence: number
        readonly raisedAt: number
        readonly time: number
      }) => void)
    | null = null

  readonly #counting: () => boolean

  /**
   * @param tags by vector; what has none is not measured
   * @param counting whether what is raised now counts: booting does not
   */
  constructor(tags: ReadonlyMap<number, InterruptTag>, counting: () => boolean = () => true) {
    this.#tags = tags
    this.#counting = counting
    for (const tag of tags.values()) this.totals.set(tag, new InterruptTotals())
  }

  /** VMRUN: this level runs now. */
  entered(apicId: number, vmpl: number): void {
    this.#vcpu(apicId).vmpl = vmpl
  }

  /** A source's message has reached a local APIC. */
  requested(apicId: number, vector: number, merged: boolean, time: number): void {
    const tag = this.#tags.get(vector)
    if (tag === undefined || !this.#counting()) return
    const totals = this.totals.get(tag)!
    totals.raised++
    if (merged) {
      totals.merged++
      return
    }
    const vcpu = this.#vcpu(apicId)
    const delayed = vcpu.vmpl !== tag.vmpl
    if (delayed) totals.delayed++
    const log = logOf(vcpu, vector)
    log.underway.push({ sequence: ++log.sequence, raisedAt: time, delayed, taken: false })
  }

  /** No local APIC took a source's message. */
  refused(vector: number): void {
    const tag = this.#tags.get(vector)
    if (tag === undefined || !this.#counting()) return
    const totals = this.totals.get(tag)!
    totals.raised++
    totals.refused++
  }

  /** The vector has left the local APIC. */
  taken(apicId: number, vector: number): void {
    const interrupt = this.#vcpus
      .get(apicId)
      ?.vectors.get(vector)
      ?.underway.find(({ taken }) => !taken)
    if (interrupt !== undefined) interrupt.taken = true
  }

  /**
   * Software that had taken the vector has given it back to the local APIC: one request there, whatever it was made of.
   */
  returned(apicId: number, vector: number): void {
    const log = this.#vcpus.get(apicId)?.vectors.get(vector)
    if (log === undefined) return
    const [first, ...rest] = log.underway
    if (first === undefined) return
    first.taken = false
    this.totals.get(this.#tags.get(vector)!)!.merged += rest.length
    log.underway.splice(1)
  }

  /** The handler of a vector begins at a level. */
  delivered(apicId: number, vmpl: number, vector: number, time: number): void {
    const tag = this.#tags.get(vector)
    if (tag === undefined) return
    const totals = this.totals.get(tag)!
    const log = logOf(this.#vcpu(apicId), vector)
    const at = log.underway.findIndex(({ taken }) => taken)
    if (at < 0) {
      if (log.mergedOutside === 0) return
      // It has a run of the handler of its own after all.
      log.mergedOutside--
      if (vmpl !== tag.vmpl) totals.misdelivered++
      else totals.delivered++
      totals.merged--
      return
    }
    const [interrupt] = log.underway.splice(at, 1)
    const { raisedAt, delayed, sequence } = interrupt!
    // What stood behind it outside of the local APIC was made one with it by software.
    const rest = log.underway.filter(({ taken }) => !taken)
    log.mergedOutside += log.underway.length - rest.length
    totals.merged += log.underway.length - rest.length
    log.underway.splice(0, Infinity, ...rest)
    this.onDelivered?.({ apicId, vmpl, vector, sequence, raisedAt, time })
    if (vmpl !== tag.vmpl) {
      totals.misdelivered++
      return
    }
    totals.delivered++
    if (delayed) totals.delayedNs.push(time - raisedAt)
    else totals.directNs.push(time - raisedAt)
  }

  /**
   * The end: what is still under way is pending where a local APIC holds it, else lost.
   * @param isRequested whether a local APIC of a guest vCPU still has a vector requested
   */
  close(isRequested: (apicId: number, vector: number) => boolean): void {
    for (const [apicId, { vectors }] of this.#vcpus) {
      for (const [vector, { underway }] of vectors) {
        const totals = this.totals.get(this.#tags.get(vector)!)!
        const untaken = underway.filter(({ taken }) => !taken).length
        const pending = isRequested(apicId, vector) ? Math.min(untaken, 1) : 0
        totals.pending += pending
        totals.lost += underway.length - pending
      }
    }
  }

  #vcpu(apicId: number): VcpuInterrupts {
    let vcpu = this.#vcpus.get(apicId)
    if (vcpu === undefined) {
      vcpu = new VcpuInterrupts()
      this.#vcpus.set(apicId, vcpu)
    }
    return vcpu
  }
}

const logOf = ({ vectors }: VcpuInterrupts, vector: number): VectorLog => {
  let log = vectors.get(vector)
  if (log === undefined) {
    log = new VectorLog()
    vectors.set(vector, log)
  }
  return log
}
