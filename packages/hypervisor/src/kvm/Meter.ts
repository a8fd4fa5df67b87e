import { assert, CORE_WAIT, type HostThread, Span } from "@vmpl-lab/sim"

/** Everything recorded about one kind of operation, added up over its samples. */
export class OperationTotals {
  readonly ns: Array<number> = []
  readonly counters = new Float64Array(6)
  readonly nsByPrimitive = new Float64Array(CORE_WAIT + 1)
  readonly countByPrimitive = new Float64Array(CORE_WAIT + 1)

  /** Adds the spans that make up one sample; its latency is the sum of their charges. */
  add(...spans: ReadonlyArray<Span>): void {
    let ns = 0
    for (const span of spans) {
      ns += span.total()
      for (let i = 0; i < this.counters.length; i++) this.counters[i]! += span.counters[i]!
      for (let i = 0; i < this.nsByPrimitive.length; i++) {
        this.nsByPrimitive[i]! += span.ns[i]!
        this.countByPrimitive[i]! += span.count[i]!
      }
    }
    this.ns.push(ns)
  }

  /** Adds all samples of another run. */
  merge(other: OperationTotals): void {
    for (const ns of other.ns) this.ns.push(ns)
    const sum = (into: Float64Array, from: Float64Array): void => {
      for (let i = 0; i < into.length; i++) into[i]! += from[i]!
    }
    sum(this.counters, other.counters)
    sum(this.nsByPrimitive, other.nsByPrimitive)
    sum(this.countByPrimitive, other.countByPrimitive)
  }
}

/** A switch under way for one guest vCPU. */
interface PendingSwitch {
  readonly from: number
  readonly to: number
  readonly span: Span
}

/** The VMPLs of one guest vCPU (one APIC ID), as the meter sees them. */
class VcpuMeter {
  /** Started by each #VMEXIT, kept when the exit turns out to ask for another VMPL. */
  exitSpan = new Span()
  pending: PendingSwitch | null = null
  /** The switch to a more privileged VMPL whose return is awaited. */
  request: Span | null = null
  creation: { readonly vmpl: number; readonly span: Span } | null = null
  spare = new Span()
}

/**
 * Measures run VMPL and AP create on the hardware's own events: from the VMGEXIT that asks to the first instruction at
 * the VMPL asked for. It sees every strategy alike, since it knows only exits, decoded requests and entries.
 */
export class Meter {
  readonly oneWay = new OperationTotals()
  readonly roundTrip = new OperationTotals()
  readonly apCreate = new OperationTotals()
  /** True once calls count: switches before that belong to booting. */
  readonly #counting: (apicId: number) => boolean
  readonly #vcpus = new Map<number, VcpuMeter>()

  constructor(counting: (apicId: number) => boolean) {
    this.#counting = counting
  }

  /** The span that the next #VMEXIT of this guest vCPU starts. */
  exitSpan(apicId: number): Span {
    return this.#of(apicId).exitSpan
  }

  /** An exit asked for another VMPL: its span is the switch's. */
  switchRequested(apicId: number, from: number, to: number): void {
    const vcpu = this.#of(apicId)
    assert(vcpu.pending === null, `guest vCPU ${apicId} asks for two switches at once`)
    vcpu.pending = { from, to, span: vcpu.exitSpan }
    vcpu.exitSpan = vcpu.spare
  }

  /** The switch was refused: the caller goes on at its own level. */
  switchRefused(apicId: number, thread: HostThread): void {
    const vcpu = this.#of(apicId)
    if (vcpu.pending !== null) vcpu.spare = vcpu.pending.span
    vcpu.pending = null
    thread.span = null
  }

  /** An exit of one guest vCPU asked to start a VMPL on another: the exit's span is the creation's. */
  creationRequested(fromApicId: number, apicId: number, vmpl: number): Span {
    const issuer = this.#of(fromApicId)
    const span = issuer.exitSpan
    issuer.exitSpan = new Span()
    this.#of(apicId).creation = { vmpl, span }
    return span
  }

  /** A creation that starts nothing now, or was refused. */
  creationDropped(apicId: number, thread: HostThread): void {
    this.#of(apicId).creation = null
    thread.span = null
  }

  /** The creation's span while it waits for the target, or null. */
  creationSpan(apicId: number): Span | null {
    return this.#of(apicId).creation?.span ?? null
  }

  /** True when an entry at this VMPL ends something. */
  awaits(apicId: number, vmpl: number): boolean {
    const { pending, creation } = this.#of(apicId)
    return pending?.to === vmpl || creation?.vmpl === vmpl
  }

  /** The first instruction at a VMPL is about to execute. */
  arrived(apicId: number, vmpl: number, thread: HostThread): void {
    thread.note("arrived", vmpl)
    const vcpu = this.#of(apicId)
    const { pending, creation } = vcpu
    if (pending !== null && pending.to === vmpl) {
      vcpu.pending = null
      this.#check(pending.span, thread)
      this.#recordSwitch(vcpu, apicId, pending)
      thread.span = null
    } else if (creation !== null && creation.vmpl === vmpl) {
      vcpu.creation = null
      this.#check(creation.span, thread)
      this.apCreate.add(creation.span)
      thread.span = null
    }
  }

  #recordSwitch(vcpu: VcpuMeter, apicId: number, { from, to, span }: PendingSwitch): void {
    const toMorePrivileged = to < from
    if (!this.#counting(apicId)) {
      vcpu.spare = span
      return
    }
    if (toMorePrivileged) {
      this.oneWay.add(span)
      vcpu.request = span
      vcpu.spare = new Span()
    } else if (vcpu.request !== null) {
      this.oneWay.add(span)
      this.roundTrip.add(vcpu.request, span)
      vcpu.request = null
      vcpu.spare = span
    } else vcpu.spare = span
  }

  /** Nothing may pass unnoticed: the charges on the path are the time that went by. */
  #check(span: Span, thread: HostThread): void {
    const elapsed = thread.time - span.begin
    assert(span.total() === elapsed, `a path of ${elapsed} ns has charges of ${span.total()} ns`)
  }

  #of(apicId: number): VcpuMeter {
    let vcpu = this.#vcpus.get(apicId)
    if (vcpu === undefined) {
      vcpu = new VcpuMeter()
      this.#vcpus.set(apicId, vcpu)
    }
    return vcpu
  }
}
