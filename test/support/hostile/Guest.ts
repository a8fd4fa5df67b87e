import { ACCEPTANCE, CORE_CALL, MIGRATION_PROTOCOL, MIGRATION_RESULT, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { PERMISSION } from "@vmpl-lab/rmp"
import { EFER_SVME, EXIT, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { RandomStream } from "@vmpl-lab/sim"
import { type GuestVmsa, SERVICE_GUID } from "@vmpl-lab/svsm"
import { Arguments } from "./Arguments.ts"
import { CPUS, type Cpu, LARGE_PARTS, SVSM } from "./Layout.ts"
import type { HostileMachine } from "./Machine.ts"

/** VMSA and calling area of a vCPU's level; the start-up vCPU's first VMSA is in the SVSM's range. */
const BLOCK = 0x3_0000
const vmsaOf = (cpu: Cpu, vmpl: number): number => BLOCK + (4 * cpu + vmpl) * 2 * PAGE_SIZE
const BOOT_VMSA = SVSM.gpa + 3 * PAGE_SIZE
const ALL = 0xf

const KNOWN = new Set<number>(Object.values(SVSM_RESULT))
/** What services have beside that. */
const SERVICES_OWN: ReadonlyMap<number, ReadonlySet<number>> = new Map([
  [MIGRATION_PROTOCOL, new Set<number>(Object.values(MIGRATION_RESULT))],
  [ACCEPTANCE.PROTOCOL, new Set([ACCEPTANCE.PAGE_STATE_FAILED])]
])
/** Results that a call may have: those of the table, those of a failed instruction, and those of its service. */
export const isResult = (result: number, protocol: number = PROTOCOL.CORE): boolean =>
  KNOWN.has(result) ||
  (result > SVSM_RESULT.FAIL_BASE && result <= SVSM_RESULT.FAIL_BASE + 0x11) ||
  SERVICES_OWN.get(protocol)?.has(result) === true

/** A call that is under way. */
interface Pending {
  readonly vmsa: GuestVmsa
  readonly protocol: number
  readonly call: number
}

/** All vCPUs and levels of a guest that ask for anything, at any time, while they change what they have asked about. */
export class HostileGuest {
  readonly machine: HostileMachine
  /** How often each result came, by protocol, and how often each call of the migration service succeeded. */
  readonly results = new Map<string, number>()
  /** Calls made. */
  calls = 0
  readonly #random: RandomStream
  readonly #arguments: Arguments
  readonly #pending: Array<Pending | null> = [null, null]

  constructor(machine: HostileMachine) {
    const { seed, guestVmpl } = machine.options
    this.machine = machine
    this.#random = new RandomStream(seed, "hostile guest")
    this.#arguments = new Arguments(machine, this.#random)
    machine.state.services.push({ guid: SERVICE_GUID.VTPM, bytes: () => new Uint8Array(100).fill(0x42) })
    for (const cpu of CPUS)
      for (let vmpl: number = guestVmpl; vmpl <= this.#leastPrivileged; vmpl++) this.#add(cpu, vmpl)
    this.#arguments.share()
    for (const cpu of CPUS) machine.wake(cpu)
  }

  /** One thing happens: VMPL0 goes on, the guest changes its memory or calls, or the host does something odd. */
  step(): void {
    const cpu = this.#int(0, 1) as Cpu
    const { machine } = this
    if (this.#int(0, 2) === 0) this.#meddle()
    if (machine.options.isHostHostile && this.#int(0, 3) === 0) machine.hostile.scribble()
    if (machine.stages[cpu] === "inside") machine.advance(cpu)
    else this.#turn(cpu)
  }

  #int(from: number, to: number): number {
    return this.#random.int(from, to)
  }

  /** A guest that is moved has one level. */
  get #leastPrivileged(): number {
    const { isMigrating, guestVmpl } = this.machine.options
    return isMigrating ? guestVmpl : 3
  }

  #add(cpu: Cpu, vmpl: number): void {
    const { machine } = this
    const isBoot = cpu === 0 && vmpl === machine.options.guestVmpl
    const vmsaGpa = isBoot ? BOOT_VMSA : vmsaOf(cpu, vmpl)
    const caGpa = vmsaOf(cpu, vmpl) + PAGE_SIZE
    if (vmpl === 3) machine.setEntry(caGpa, { perms: [ALL, ALL, ALL, ALL] })
    machine.addVmsa({ vmsaGpa, caGpa, apicId: cpu, vmpl, guestOwned: !isBoot, hasRun: true })
  }

  /** VMPL0 waits for its guest on this CPU: some level of it has run. */
  #turn(cpu: Cpu): void {
    const { machine } = this
    if (this.#isDeleting(cpu === 0 ? 1 : 0)) return
    this.#finish(cpu)
    this.#restore(cpu)
    machine.refill(this.#arguments.pages())
    if (machine.options.isMigrating) this.#arguments.journey.next()
    const levels = machine.state.served[cpu]!.filter((vmsa) => vmsa !== undefined)
    // The host need not run the level that was asked for, nor any.
    if (levels.length > 0) this.#ring(cpu, levels[this.#int(0, levels.length - 1)]!)
    if (machine.stages[cpu] === "idle") machine.wake(cpu)
    else machine.resume(cpu, this.#int(0, 39) === 0 ? this.#int(1, 0x7fff_ffff) : 0)
  }

  /** A CPU is taking a VMSA back: for that moment it is in no list of what is served, and must not be put there. */
  #isDeleting(cpu: Cpu): boolean {
    const caller = this.machine.state.serving[cpu]
    if (caller === undefined) return false
    const view = this.machine.view(caller.vmsaGpa)
    const call = view.getUint32(VMSA.rax, true)
    return call === CORE_CALL.DELETE_VCPU && view.getUint32(VMSA.rax + 4, true) === PROTOCOL.CORE
  }

  /** What came of the latest call. */
  #finish(cpu: Cpu): void {
    const { machine } = this
    const pending = this.#pending[cpu] ?? null
    this.#pending[cpu] = null
    if (
      pending === null ||
      !machine.watch.answered.has(pending.vmsa.vmsaGpa) ||
      !machine.state.registry.includes(pending.vmsa)
    )
      return
    const view = machine.view(pending.vmsa.vmsaGpa)
    const isParked = machine.migration.parked.has(pending.vmsa)
    if ((view.getUint32(VMSA.efer, true) & EFER_SVME) === 0 && !isParked)
      machine.watch.trespasses.push("SVME stays off")
    const result = view.getUint32(VMSA.rax, true)
    if (!isResult(result, pending.protocol)) machine.watch.trespasses.push(`result 0x${result.toString(16)}`)
    this.#count(`${pending.protocol.toString(16)} ${result.toString(16)}`)
    if (pending.protocol === MIGRATION_PROTOCOL && result === 0) this.#count(`moved ${pending.call}`)
  }

  #count(key: string): void {
    this.results.set(key, (this.results.get(key) ?? 0) + 1)
  }

  /** A guest that replaced or deleted the vCPU it runs on would not be served any more: all levels go on. */
  #restore(cpu: Cpu): void {
    const { state, options } = this.machine
    const isParked = (vmsa: GuestVmsa): boolean => this.machine.migration.parked.has(vmsa)
    for (let vmpl = options.guestVmpl as number; vmpl <= this.#leastPrivileged; vmpl++) {
      const isThere = state.registry.some((one) => one.apicId === cpu && one.vmpl === vmpl)
      const page = vmsaOf(cpu, vmpl)
      const isFree = [page, page + PAGE_SIZE].every((gpa) => state.validated.has(gpa / PAGE_SIZE))
      if (!isThere && isFree && !state.registry.some(({ caGpa }) => caGpa === page + PAGE_SIZE)) this.#add(cpu, vmpl)
      const next = state.registry.find((one) => one.apicId === cpu && one.vmpl === vmpl && !isParked(one))
      state.served[cpu]![vmpl] = next
    }
    for (const vmsa of state.served[cpu]!) if (vmsa !== undefined) vmsa.hasRun = true
    state.running[cpu] = state.served[cpu]!.find((one) => one !== undefined)
  }

  #ring(cpu: Cpu, vmsa: GuestVmsa): void {
    const { machine } = this
    const { vmpl } = vmsa
    for (let times = 0; times < 2; times++) this.#arguments.writePage(vmpl)
    if (machine.options.isMigrating && this.#arguments.journey.fault(vmsa)) return
    const call = this.#arguments.call(vmsa)
    const view = machine.view(vmsa.vmsaGpa)
    const quad = (register: number, [hi, lo]: readonly [number, number]): void => {
      view.setUint32(register, lo, true)
      view.setUint32(register + 4, hi, true)
    }
    quad(VMSA.rax, [call.protocol, call.call])
    quad(VMSA.rcx, call.rcx)
    quad(VMSA.rdx, call.rdx)
    quad(VMSA.r8, call.r8)
    const exit = this.#int(0, 39) === 0 ? this.#int(0, 0x500) : EXIT.VMGEXIT
    const pending = this.#int(0, 29) === 0 ? this.#int(0, 255) : 1
    view.setUint32(VMSA.guest_exit_code, exit, true)
    // What the other levels left unserved would come first.
    for (const other of machine.state.served[cpu]!) {
      if (other !== undefined && this.#int(0, 15) > 0) machine.view(other.caGpa).setUint8(0, 0)
    }
    machine.view(vmsa.caGpa).setUint8(0, pending)
    this.calls++
    const isCore = call.protocol === PROTOCOL.CORE
    const named =
      isCore && call.call === CORE_CALL.CREATE_VCPU
        ? call.rdx
        : isCore && call.call === CORE_CALL.REMAP_CA
          ? call.rcx
          : null
    const area = named !== null && named[0] === 0 && this.#arguments.mayWrite(named[1], vmpl) ? named[1] : null
    machine.watch.answered.delete(vmsa.vmsaGpa)
    if (area === null) machine.watch.areas.delete(vmsa.vmsaGpa)
    else machine.watch.areas.set(vmsa.vmsaGpa, area)
    if (pending !== 0 && exit === EXIT.VMGEXIT) this.#pending[cpu] = { vmsa, protocol: call.protocol, call: call.call }
  }

  /** Other vCPUs go on while VMPL0 serves: lists, buffers, calling areas and rights change under its hands. */
  #meddle(): void {
    const { machine } = this
    const { guestVmpl } = machine.options
    const vmpl = this.#int(guestVmpl, 3)
    const kind = this.#int(0, 3)
    if (kind === 0) this.#arguments.writePage(vmpl)
    else if (kind === 1) this.#arguments.scribble(vmpl)
    else if (kind === 2) {
      const { registry } = machine.state
      const { caGpa } = registry[this.#int(0, registry.length - 1)]!
      if (this.#arguments.mayWrite(caGpa, vmpl)) machine.view(caGpa).setUint8(this.#int(0, 7), this.#int(0, 255))
    } else if (!machine.hasLooked.includes(true)) this.#adjust(guestVmpl)
  }

  /** RMPADJUST of the guest's most privileged level: a less privileged one gets or loses its right to write. */
  #adjust(guestVmpl: number): void {
    const { machine } = this
    const gpa = this.#arguments.page()
    if (LARGE_PARTS.includes(gpa)) return
    const { validated, vmsa, perms } = machine.entry(gpa)
    if (!validated || vmsa || (perms[guestVmpl]! & PERMISSION.WRITE) === 0) return
    const mask = this.#int(0, 3) === 0 ? 1 : ALL
    const next = perms.map((old, level) => (level > guestVmpl ? mask : old)) as [number, number, number, number]
    machine.setEntry(gpa, { perms: next })
  }
}
