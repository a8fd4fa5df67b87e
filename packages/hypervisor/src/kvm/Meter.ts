import { NUM_VMPLS } from "@vmpl-lab/rmp"
import { AP_CREATION } from "@vmpl-lab/sev-es"
import { assert, CORE_WAIT, type HostThread, Span } from "@vmpl-lab/sim"

import type { ApCreateRequest } from "./ApCreateRequest.ts"

/** Creations that are measured, as tables call them. */
const CREATION_NAME: { readonly [request: number]: string } = {
  [AP_CREATION.CREATE]: "CREATE",
  [AP_CREATION.CREATE_ON_INIT]: "CREATE_ON_INIT"
}

/** Everything recorded about one kind of operation, added up over its samples. */
export class OperationTotals {
  readonly ns: Array<number> = []
  readonly counters = new Float64Array(6)
  readonly nsByPrimitive = new Float64Array(CORE_WAIT + 1)
  readonly countByPrimitive = new Float64Array(CORE_WAIT + 1)

  /** Adds a sample, which is made up of one span or of two. @returns its latency, the sum of their charges */
  add(span: Span, second: Span | null = null): number {
    this.#addCharges(span)
    if (second !== null) this.#addCharges(second)
    const ns = span.total() + (second === null ? 0 : second.total())
    this.ns.push(ns)
    return ns
  }

  #addCharges({ counters, charged, kinds, ns, count }: Span): void {
    for (let i = 0; i < this.counters.length; i++) this.counters[i]! += counters[i]!
    for (let i = 0; i < kinds; i++) {
      const primitive = charged[i]!
      this.nsByPrimitive[primitive]! += ns[primitive]!
      this.countByPrimitive[primitive]! += count[primitive]!
    }
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

const addTo = (groups: Map<string, Array<number>>, name: string, ns: number): void => {
  const samples = groups.get(name)
  if (samples === undefined) groups.set(name, [ns])
  else samples.push(ns)
}

/** A switch under way for one guest vCPU. */
interface PendingSwitch {
  readonly from: number
  readonly to: number
  readonly span: Span
}

/** A creation under way: it ends with the first instruction at `vmpl` of the guest vCPU that holds this. */
interface PendingCreation {
  readonly vmpl: number
  readonly span: Span
  readonly group: string
}

/** The VMPLs of one guest vCPU (one APIC ID), as the meter sees them. */
class VcpuMeter {
  /** Started by each #VMEXIT, kept when the exit turns out to ask for another VMPL. */
  exitSpan = new Span()
  pending: PendingSwitch | null = null
  /** By calling level: its switch to a more privileged one whose return is awaited. Calls may be nested. */
  readonly requests: Array<PendingSwitch | null> = []
  creation: PendingCreation | null = null
  roundTrips = 0
  roundTripNs = 0
}

/**
 * Measures run VMPL and AP create on the hardware's own events: from the VMGEXIT that asks to the first instruction at
 * the VMPL asked for. CREATE_ON_INIT starts nothing: it ends when its caller goes on. The meter sees every strategy
 * alike, since it knows only exits, decoded requests and entries.
 */
export class Meter {
  readonly oneWay = new OperationTotals()
  readonly roundTrip = new OperationTotals()
  readonly apCreate = new OperationTotals()
  /** Latencies of AP create by what was asked for, such as "VMPL2 CREATE". */
  readonly apCreateGroups = new Map<string, Array<number>>()
  /** Latencies of round trips by caller and called level, such as "VMPL2 to VMPL0". */
  readonly roundTripGroups = new Map<string, Array<number>>()
  /** The same by caller and called level as numbers. */
  readonly #roundTrips: Array<Array<number> | undefined> = []
  /** True once calls count: switches before that belong to booting. */
  readonly #counting: (apicId: number) => boolean
  /** By APIC ID. */
  readonly #vcpus: Array<VcpuMeter | undefined> = []
  readonly #free: Array<Span> = []

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
    // One that an AP creation has overtaken never arrives: its span is dropped, as a thread may still hold it.
    vcpu.pending = { from, to, span: vcpu.exitSpan }
    vcpu.exitSpan = this.#take()
  }

  /** The switch was refused: the caller goes on at its own level. */
  switchRefused(apicId: number, thread: HostThread): void {
    const vcpu = this.#of(apicId)
    vcpu.pending = null
    thread.span = null
  }

  /** An exit asked for an AP: its span is the creation's. DESTROY creates nothing and is not measured. */
  creationRequested(request: ApCreateRequest): void {
    const name = CREATION_NAME[request.request]
    if (name === undefined) return
    const issuer = this.#of(request.fromApicId)
    const span = issuer.exitSpan
    issuer.exitSpan = this.#take()
    const group = `VMPL${request.vmpl} ${name}`
    const starts = request.request === AP_CREATION.CREATE
    const holder = starts ? this.#of(request.apicId) : issuer
    holder.creation = { vmpl: starts ? request.vmpl : request.fromVmpl, span, group }
  }

  /** The creation was refused. */
  creationRefused(request: ApCreateRequest, thread: HostThread): void {
    const starts = request.request === AP_CREATION.CREATE
    this.#of(starts ? request.apicId : request.fromApicId).creation = null
    thread.span = null
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
      if (thread.span === pending.span) {
        this.#check(pending.span, thread)
        this.#recordSwitch(vcpu, apicId, pending)
      }
      thread.span = null
    } else if (creation !== null && creation.vmpl === vmpl) {
      // An earlier creation at this level, overtaken by this one, arrives unnoticed.
      if (thread.span === creation.span) {
        vcpu.creation = null
        this.#recordCreation(creation, thread)
      }
      thread.span = null
    }
  }

  #recordCreation({ span, group }: PendingCreation, thread: HostThread): void {
    this.#check(span, thread)
    const ns = this.apCreate.add(span)
    addTo(this.apCreateGroups, group, ns)
  }

  #recordSwitch(vcpu: VcpuMeter, apicId: number, { from, to, span }: PendingSwitch): void {
    if (this.#counting(apicId) && to < from) {
      this.oneWay.add(span)
      const overtaken = vcpu.requests[from]
      if (overtaken !== null && overtaken !== undefined) this.#free.push(overtaken.span)
      vcpu.requests[from] = { from, to, span }
      return
    }
    const request = vcpu.requests[to]
    if (request !== null && request !== undefined && request.to === from) {
      this.oneWay.add(span)
      const ns = this.roundTrip.add(request.span, span)
      this.#roundTripsOf(to, from).push(ns)
      vcpu.roundTrips++
      vcpu.roundTripNs += ns
      this.#free.push(request.span)
      vcpu.requests[to] = null
    }
    this.#free.push(span)
  }

  /** Samples of `roundTripGroups`, which are too many for a look-up by name each. */
  #roundTripsOf(caller: number, called: number): Array<number> {
    const at = caller * NUM_VMPLS + called
    let samples = this.#roundTrips[at]
    if (samples === undefined) {
      samples = []
      this.#roundTrips[at] = samples
      this.roundTripGroups.set(`VMPL${caller} to VMPL${called}`, samples)
    }
    return samples
  }

  /** VMPL switches of a guest vCPU's round trips so far, and the time they took. */
  switching(apicId: number): { readonly switches: number; readonly switchNs: number } {
    const { roundTrips, roundTripNs } = this.#of(apicId)
    return { switches: 2 * roundTrips, switchNs: roundTripNs }
  }

  /** Time of the switch that this level's call took, as long as it has not returned; 0 where there is none. */
  openSwitchNs(apicId: number, vmpl: number): number {
    return this.#of(apicId).requests[vmpl]?.span.total() ?? 0
  }

  /** A span that nobody uses: charges are recorded at every switch, so spans are used again. */
  #take(): Span {
    return this.#free.pop() ?? new Span()
  }

  /** Nothing may pass unnoticed: the charges on the path are the time that went by. */
  #check(span: Span, thread: HostThread): void {
    const elapsed = thread.time - span.begin
    assert(span.total() === elapsed, `a path of ${elapsed} ns has charges of ${span.total()} ns`)
  }

  #of(apicId: number): VcpuMeter {
    let vcpu = this.#vcpus[apicId]
    if (vcpu === undefined) {
      vcpu = new VcpuMeter()
      this.#vcpus[apicId] = vcpu
    }
    return vcpu
  }
}
