import { apVmsa, Ghcb, vcHandler, X2APIC } from "@vmpl-lab/guest"
import type { SnpFirmware } from "@vmpl-lab/psp"
import { PAGE_2M, PAGE_4K, RETURN_CODE, Rmp, type RmpEntry } from "@vmpl-lab/rmp"
import {
  EXIT,
  GHCB_MSR,
  INTERCEPT,
  msrInfo,
  NESTED_CTL,
  PAGE_SIZE,
  pscGfn,
  SEV_FEATURES,
  VMCB,
  VMSA
} from "@vmpl-lab/sev-es"
import { CostTable, Host, PRIMITIVES, type Profile, RandomStream } from "@vmpl-lab/sim"
import {
  BEHAVIOUR,
  CpuInterrupts,
  FirmwareMessages,
  GuestApic,
  type GuestVmsa,
  MESSAGE_PAGES,
  type Migration,
  type Protocol,
  requestLoop,
  SHIPPED_PROTOCOLS,
  type SvsmBehaviour,
  SvsmState,
  svsmGhcbGpa,
  svsmMessageGpa,
  svsmVmsaGpa,
  type UefiMm
} from "@vmpl-lab/svsm"
import {
  HOST_ASID,
  HostMemory,
  hlt,
  lidt,
  NestedPageTable,
  OP,
  type Operation,
  type OperationResult,
  PhysicalMemory,
  Processor,
  type Program,
  ProgramMemory,
  pause,
  runGuest,
  vmrun
} from "@vmpl-lab/vmpl"
import { replaced } from "../wrapped.ts"
import { HostileHost } from "./Host.ts"
import {
  ASID,
  BACKUP_PAGE,
  CPUS,
  type Cpu,
  DOORBELL_PAGE,
  FIRMWARE,
  HEAP,
  isShared,
  LARGE,
  LARGE_PARTS,
  RAM_SIZE,
  SECRET_PAGES,
  SVSM,
  VALIDATED_UP_TO,
  VCPUS
} from "./Layout.ts"
import { Record } from "./Record.ts"
import { type Secrets, secretsOf } from "./Secrets.ts"
import { hideVariables } from "./UefiCalls.ts"
import { Watch } from "./Watch.ts"

const ALL = 0xf
const FRAME_OFFSET = 0x200
const NCR3_PFN = 0x10
const vmcbOf = (cpu: Cpu): number => (1 + cpu) * PAGE_SIZE
/** Of an operation that VMPL0 is about to do, one in so many lets the other CPU, the guest and the host come first. */
const STOP_EVERY = 12

const costs = new CostTable(
  {
    name: "test",
    machine: "none",
    primitives: Object.fromEntries(
      PRIMITIVES.map((name, i) => [name, { ns: i + 1, low: 1, high: 99, basis: "assumed", source: "none" }])
    ),
    sums: []
  } as unknown as Profile,
  1
)

export interface HostileOptions {
  readonly seed: number
  readonly behaviour: SvsmBehaviour
  /** Most privileged level of the guest: there are VMSAs of this one and of those after it. */
  readonly guestVmpl: 1 | 2
  /** There is one level, and it is being moved to another machine. */
  readonly isMigrating: boolean
  /** Which of all contents VMPL0's secrets have: nothing else depends on it. */
  readonly filling: number
  readonly isHostHostile: boolean
  /** Pages that the guest plays with beside the others. */
  readonly pages?: ReadonlyArray<number>
  /** Protocols beside the shipped ones, and what answers them. */
  readonly services: (secrets: Secrets) => Services
}

/** The services of one SVSM. */

export interface Services {
  readonly protocols: ReadonlyArray<Protocol>
  /** Answers the oldest open question of each port. */
  readonly answer: () => void
  readonly migration: Migration
  readonly uefi: UefiMm
}

/** What a CPU of the SVSM is at: in the middle of something, ready to run the guest, or idle. */
export type Stage = "inside" | "asks" | "idle"

/**
 * SVSM CPUs on real hardware that go on in turns, between any two operations. Guest and host are played by the test; the
 * AMD-SP is the real one. Everything that somebody below VMPL0 can see goes into a record.
 */
export class HostileMachine {
  readonly state: SvsmState
  readonly rmp = new Rmp({ pages: 0x1000 })
  readonly record: Record
  readonly migration: Migration
  readonly watch: Watch
  readonly secrets: Secrets
  readonly options: HostileOptions
  readonly stages: Array<Stage> = ["inside", "inside"]
  /** A CPU has just looked at what a level may access: rights stay until it has acted upon it. */
  readonly hasLooked = [false, false]
  readonly host: HostMemory
  readonly #memory = new PhysicalMemory(0x1000)
  readonly #npt = new NestedPageTable()
  readonly #cpus: ReadonlyArray<Processor>
  readonly #stopped = [false, false]
  readonly #schedule: RandomStream
  readonly hostile: HostileHost
  readonly #filled = new Set<number>()
  /** Pages that the guest plays with. */
  pool: ReadonlyArray<number> = []
  readonly #answer: () => void
  /** The latest operation of each CPU. */
  readonly #latest: Array<Operation | null> = [null, null]

  constructor(options: HostileOptions) {
    const { seed, behaviour, guestVmpl } = options
    this.options = options
    this.#schedule = new RandomStream(seed, "schedule")
    this.secrets = secretsOf(options.filling)
    const { protocols, answer, migration, uefi } = options.services(this.secrets)
    this.#answer = answer
    this.migration = migration
    this.record = new Record(migration)
    const served = new Set(protocols.map(({ number }) => number))
    this.state = new SvsmState([...SHIPPED_PROTOCOLS.filter(({ number }) => !served.has(number)), ...protocols])
    this.state.behaviour = BEHAVIOUR[behaviour]
    if (seed % 2 === 1) hideVariables(uefi.managementMode(this.state), this.secrets)
    this.host = new HostMemory(this.#memory, this.rmp)
    const firmware = this.#launchContext()
    this.state.parameters = {
      vcpus: VCPUS,
      ramSize: RAM_SIZE,
      highRam: { gpa: 0x1_0000_0000, size: 0 },
      guestVmpl,
      entriesPerCall: seed % 3 === 0 ? 2 : 0,
      svsm: SVSM,
      firmware: FIRMWARE,
      resetVector: FIRMWARE.gpa,
      secretsGpa: 0x2_0000,
      cpuidGpa: 0x2_1000,
      callingAreaGpa: 0,
      callingAreaLaunched: true,
      preValidated: []
    }
    this.state.startUpFeatures = SEV_FEATURES.SNPActive
    this.state.served.push([], [], [], [])
    this.#layOut()
    this.#fillSecrets()
    const [vmpck0, vmpck1] = firmware.guest(HostileHost.GCTX)!.vmpck
    vmpck0!.set(this.secrets.bytes(32))
    if (guestVmpl > 1) vmpck1!.set(this.secrets.bytes(32))
    this.state.messages = new FirmwareMessages(this.state, vmpck0!)
    this.watch = new Watch(this)
    this.hostile = new HostileHost(this, firmware)
    const programs = new ProgramMemory()
    this.#cpus = CPUS.map((cpu) => this.#cpu(cpu, programs))
    for (const cpu of CPUS) while (this.stages[cpu] === "inside") this.advance(cpu)
  }

  /** Lets VMPL0 go on with what it is at, until it is stopped, wants the guest to run, or idles. */
  advance(cpu: Cpu): void {
    const processor = this.#cpus[cpu]!
    for (;;) {
      const entered = vmrun(processor, vmcbOf(cpu))
      if (entered !== "entered") throw new Error(`VMRUN of VMPL0: ${entered}`)
      const code = runGuest(processor, Infinity)
      this.record.words(cpu, code, processor.thread.time)
      if (code === EXIT.HLT) {
        if (!this.#stopped[cpu]) this.stages[cpu] = "idle"
        return
      }
      if (code === EXIT.NPF && (this.#smash(cpu) || this.#convert(cpu))) continue
      if (code !== EXIT.VMGEXIT) throw new Error(`VMPL0 on CPU ${cpu} stops with exit 0x${code.toString(16)}`)
      if (this.#vmgexit(cpu)) return
    }
  }

  /** The host's answer to the request to run the guest: done, or an error. What follows is VMPL0's. */
  resume(cpu: Cpu, error: number): void {
    this.#respond(cpu, GHCB_MSR.RUN_VMPL_RESPONSE, error)
    this.stages[cpu] = "inside"
  }

  /** VMPL0 is entered without having asked for it. */
  wake(cpu: Cpu): void {
    this.stages[cpu] = "inside"
  }

  /** A page's bytes as the guest's key shows them. */
  view(gpa: number): DataView {
    const view = this.#memory.write(this.frame(gpa), ASID)
    return new DataView(view.buffer, view.byteOffset + (gpa % PAGE_SIZE), PAGE_SIZE - (gpa % PAGE_SIZE))
  }

  put(gpa: number, bytes: Uint8Array): void {
    const view = this.view(gpa)
    new Uint8Array(view.buffer, view.byteOffset, bytes.length).set(bytes)
  }

  /** The entry that rules a page. */
  entry(gpa: number): RmpEntry {
    return this.#ruling(this.frame(gpa))
  }

  setEntry(gpa: number, fields: Partial<RmpEntry>): void {
    this.rmp.firmwareSet(this.frame(gpa), { size: PAGE_4K, ...fields })
  }

  frame(gpa: number): number {
    return Math.floor(gpa / PAGE_SIZE) + FRAME_OFFSET
  }

  /** Makes a page the VMSA of a vCPU's level, as CREATE_VCPU would. */
  addVmsa(vmsa: GuestVmsa): void {
    this.put(vmsa.vmsaGpa, this.vmsaBytes(vmsa.vmpl))
    const perms = vmsa.guestOwned ? ([ALL, 0, 0, 1] as const) : ([ALL, 0, 0, 0] as const)
    this.setEntry(vmsa.vmsaGpa, { vmsa: true, perms })
    this.state.register(vmsa)
  }

  vmsaBytes(vmpl: number): Uint8Array {
    return apVmsa({ vmpl, sevFeatures: SEV_FEATURES.SNPActive, codeBase: 0, rip: 0, argument: 0 })
  }

  /**
   * What is VMPL0's for now gets secret contents: pages that were deposited, and those that are not validated, behind
   * which the host has put frames of the SVSM's.
   */
  refill(gpas: Iterable<number>): void {
    for (const gpa of gpas) {
      const gfn = gpa / PAGE_SIZE
      const { validated, assigned } = this.entry(gpa)
      const isSecret = this.state.deposited.has(gfn) || (assigned && !validated)
      if (!isSecret) this.#filled.delete(gpa)
      else if (!this.#filled.has(gpa) && !this.state.changing.has(gfn)) {
        this.#filled.add(gpa)
        this.put(gpa, this.secrets.bytes(PAGE_SIZE))
      }
    }
  }

  /** Everything that VMPL1 to VMPL3 or the host can read, by frame; what is sealed for the AMD-SP is left out. */
  visible(): ReadonlyMap<number, Uint8Array> {
    const frames = new Map<number, Uint8Array>()
    const registers = new Set(this.state.registry.map(({ vmsaGpa }) => this.frame(vmsaGpa)))
    const sealed = [MESSAGE_PAGES.REQUEST, MESSAGE_PAGES.RESPONSE].map((page) =>
      this.frame(svsmMessageGpa(SVSM) + page)
    )
    this.#memory.forEachFrame((pfn, asid, bytes) => {
      // What is sealed for another SVSM: each store was looked at.
      if (isShared((pfn - FRAME_OFFSET) * PAGE_SIZE) && !this.#ruling(pfn).assigned) return
      const { assigned, validated, perms } = this.#ruling(pfn)
      const isHosts = !assigned && asid === HOST_ASID && pfn >= FRAME_OFFSET
      const isGuests = assigned && asid === ASID && validated && perms.slice(1).some((mask) => mask !== 0)
      if (!isHosts && !isGuests && !registers.has(pfn)) return
      frames.set(pfn, sealed.includes(pfn) ? bytes.subarray(0x20, 0x60) : bytes)
    })
    return frames
  }

  #ruling(pfn: number): RmpEntry {
    const first = this.frame(LARGE.gpa)
    const isIn = pfn >= first && pfn < this.frame(LARGE.gpa + LARGE.size)
    return this.rmp.entry(isIn && this.rmp.entry(first).size === PAGE_2M ? first : pfn)
  }

  /** VMPL0 names a part of the large page: the host smashes it, as KVM does. @returns whether there was one to smash */
  #smash(cpu: Cpu): boolean {
    const at = this.host.read64(vmcbOf(cpu) + VMCB.exit_info_2)
    const isIn = at >= LARGE.gpa && at < LARGE.gpa + LARGE.size
    const first = this.frame(LARGE.gpa)
    if (!isIn || this.rmp.entry(first).size !== PAGE_2M || this.rmp.psmash(first) !== RETURN_CODE.SUCCESS) return false
    for (let gpa = LARGE.gpa; gpa < LARGE.gpa + LARGE.size; gpa += PAGE_SIZE) {
      this.#npt.map(gpa / PAGE_SIZE, this.frame(gpa))
    }
    return true
  }

  /** The host makes of a page what VMPL0 wants of it, as long as it is not the guest's. @returns whether it did */
  #convert(cpu: Cpu): boolean {
    const at = this.host.read64(vmcbOf(cpu) + VMCB.exit_info_2)
    const gpa = at - (at % PAGE_SIZE)
    if (gpa >= SVSM.gpa || (gpa >= LARGE.gpa && gpa < LARGE.gpa + LARGE.size)) return false
    const { assigned, validated } = this.entry(gpa)
    const isPrivate = this.#latest[cpu]!.cbit
    if (isPrivate === assigned || validated) return false
    if (isPrivate) this.makePrivate(gpa)
    else {
      this.rmp.rmpupdate(this.frame(gpa), false, PAGE_4K, false, 0, 0)
      this.#memory.replace(this.frame(gpa), HOST_ASID, null)
    }
    return true
  }

  /** A page of the host's becomes the guest's, to be validated. */
  makePrivate(gpa: number): void {
    this.rmp.rmpupdate(this.frame(gpa), true, PAGE_4K, false, gpa / PAGE_SIZE, ASID)
    this.#memory.replace(this.frame(gpa), ASID, null)
    this.#filled.delete(gpa)
  }

  /** The host stores in pages of its own. */
  bring(gpa: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += PAGE_SIZE) {
      const page = new Uint8Array(PAGE_SIZE)
      page.set(bytes.subarray(at, at + PAGE_SIZE))
      this.#memory.replace(this.frame(gpa + at), HOST_ASID, page)
    }
  }

  #launchContext(): SnpFirmware {
    const memory = this.#memory
    const page = (view: DataView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE)
    return HostileHost.launch(this.rmp, {
      readPlain: (pfn) => page(memory.read(pfn, HOST_ASID)),
      writePlain: (pfn, contents) => memory.replace(pfn, HOST_ASID, contents),
      readEncrypted: (pfn, asid) => page(memory.read(pfn, asid)),
      writeEncrypted: (pfn, asid, contents) => memory.replace(pfn, asid, contents),
      createKey: (asid, key) => memory.setKey(asid, key),
      destroyKey: (asid) => memory.dropKey(asid)
    })
  }

  #layOut(): void {
    const { guestVmpl, behaviour } = this.options
    const granted = behaviour === "coconut" ? [2] : Array.from({ length: guestVmpl }, (_, i) => i + 1)
    const guests = [ALL, 0, 0, 0].map((mask, level) => (granted.includes(level) ? ALL : mask))
    for (let gpa = 0; gpa < FIRMWARE.gpa + FIRMWARE.size; gpa += PAGE_SIZE) {
      const gfn = gpa / PAGE_SIZE
      if (gpa === LARGE.gpa) this.#layOutLarge()
      if (gpa >= LARGE.gpa && gpa < LARGE.gpa + LARGE.size) continue
      this.#npt.map(gfn, gfn + FRAME_OFFSET)
      const own = gpa >= SVSM.gpa && gpa < SVSM.gpa + SVSM.size
      const isHeap = gpa >= HEAP.gpa && gpa < HEAP.gpa + HEAP.size
      const validated = (own && !isHeap) || gpa < VALIDATED_UP_TO || gpa >= FIRMWARE.gpa
      const perms = (own || !validated ? [ALL, 0, 0, 0] : guests) as [number, number, number, number]
      const isDoorbell = CPUS.some((cpu) => gpa === SVSM.gpa + (DOORBELL_PAGE + cpu) * PAGE_SIZE)
      if (isShared(gpa) || isDoorbell) continue
      this.#memory.replace(gfn + FRAME_OFFSET, ASID, null)
      this.setEntry(gpa, { assigned: true, asid: ASID, gfn, validated, perms })
      if (validated && !own) this.state.validated.add(gfn)
    }
  }

  #layOutLarge(): void {
    const gfn = LARGE.gpa / PAGE_SIZE
    this.#npt.map(gfn, gfn + FRAME_OFFSET, PAGE_2M)
    this.#memory.clearRegion(gfn + FRAME_OFFSET, ASID)
    const perms = [ALL, 0, 0, 0] as const
    this.rmp.firmwareSet(gfn + FRAME_OFFSET, {
      size: PAGE_2M,
      assigned: true,
      asid: ASID,
      gfn,
      validated: false,
      perms
    })
  }

  #fillSecrets(): void {
    for (const page of [...SECRET_PAGES, ...CPUS.map((cpu) => BACKUP_PAGE + cpu)])
      this.put(SVSM.gpa + page * PAGE_SIZE, this.secrets.bytes(PAGE_SIZE))
  }

  #cpu(cpu: Cpu, programs: ProgramMemory): Processor {
    const { gpa } = SVSM
    const rip = 0x10 * (cpu + 1)
    const vmsaGpa = svsmVmsaGpa(gpa, cpu)
    const bytes = apVmsa({ vmpl: 0, sevFeatures: SEV_FEATURES.SNPActive, codeBase: gpa, rip, argument: 0 })
    // What VMPL0 computes with is nobody else's: its general registers hold it.
    for (const register of [VMSA.rbx, VMSA.rbp, VMSA.rsi, VMSA.r12]) bytes.set(this.secrets.bytes(8), register)
    this.put(vmsaGpa, bytes)
    this.setEntry(vmsaGpa, { vmsa: true, perms: [ALL, 0, 0, 0] })
    programs.install(gpa + rip, () => replaced(this.#program(cpu), (operation) => this.#step(cpu, operation)))
    const vmcb = vmcbOf(cpu)
    const { host } = this
    host.write32(vmcb + VMCB.asid, ASID)
    const control = NESTED_CTL.NP_ENABLE | NESTED_CTL.SEV_ENABLE | NESTED_CTL.SEV_ES_ENABLE
    host.write64(vmcb + VMCB.nested_ctl, control, 0)
    host.write32(vmcb + VMCB.intercept_word3, 1 << (INTERCEPT.HLT & 31))
    host.write64(vmcb + VMCB.nested_cr3, NCR3_PFN * PAGE_SIZE, 0)
    host.write64(vmcb + VMCB.vmsa_pa, this.frame(vmsaGpa) * PAGE_SIZE, 0)
    const nestedTables = new Map([[NCR3_PFN * PAGE_SIZE, this.#npt]])
    const hardware = { memory: this.#memory, rmp: this.rmp, host, programs, nestedTables }
    return new Processor({ ...hardware, executions: new Map() }, new Host(1, costs).spawn("cpu", -1))
  }

  *#program(cpu: Cpu): Program {
    yield lidt(vcHandler)
    const ghcb = new Ghcb(svsmGhcbGpa(SVSM.gpa, cpu), { backup: SVSM.gpa + (BACKUP_PAGE + cpu) * PAGE_SIZE })
    yield* ghcb.setUp()
    // The guest's APIC is the SVSM's in some machines; the doorbell stays silent.
    const doorbell = SVSM.gpa + (DOORBELL_PAGE + cpu) * PAGE_SIZE
    if (this.options.seed % 2 === 0) this.state.interrupts[cpu] = new CpuInterrupts(ghcb, doorbell, new GuestApic(cpu))
    yield* requestLoop(this.state, cpu)
  }

  /** One operation of VMPL0: before it others may go on, and what it shows is put down. */
  *#step(cpu: Cpu, operation: Operation): Program {
    if (operation.op === OP.OUTSIDE) this.#answer()
    const mustStop = operation.op === OP.PAUSE || this.#schedule.int(1, STOP_EVERY) === 1
    if (mustStop && operation.op !== OP.HLT && operation.op !== OP.VMGEXIT) {
      this.#stopped[cpu] = true
      yield hlt()
    }
    this.#stopped[cpu] = false
    this.#latest[cpu] = operation
    this.watch.before(cpu, operation)
    this.record.operation(cpu, operation)
    // The kick of another CPU ends at an interrupt controller, which is not here.
    const isKick = operation.op === OP.WRMSR && operation.address === X2APIC.ICR
    const result: OperationResult = yield isKick ? pause() : operation
    this.hasLooked[cpu] = operation.op === OP.RMPQUERY
    this.record.result(operation, result)
    if (operation.op === OP.RMPADJUST && result.lo === 0 && (operation.lo & 0xff00) !== 0) {
      for (const gpa of operation.hi === 0 ? [operation.address] : LARGE_PARTS) this.#shown(gpa)
    }
  }

  /** A level got rights to a page: what it finds there. */
  #shown(gpa: number): void {
    const { buffer, byteOffset } = this.#memory.read(this.frame(gpa), ASID)
    this.record.bytes(new Uint8Array(buffer, byteOffset, PAGE_SIZE))
  }

  /** @returns whether VMPL0 waits for the guest to have run */
  #vmgexit(cpu: Cpu): boolean {
    const msr = vmcbOf(cpu) + VMCB.ghcb_gpa
    const lo = this.host.read32(msr)
    const hi = this.host.read32(msr + 4)
    this.record.words(lo, hi)
    switch (msrInfo(lo)) {
      case GHCB_MSR.RUN_VMPL_REQUEST:
        this.stages[cpu] = "asks"
        return true
      case GHCB_MSR.PSC_REQUEST:
        this.#makeShared(cpu, pscGfn(lo, hi))
        return false
      case GHCB_MSR.REGISTER_GPA_REQUEST:
        this.#respond(cpu, (lo & ~0xfff) | GHCB_MSR.REGISTER_GPA_RESPONSE, hi)
        return false
      case 0:
        this.hostile.page(lo)
        return false
      default:
        throw new Error(`VMPL0 on CPU ${cpu} makes MSR request 0x${lo.toString(16)}`)
    }
  }

  /** A host that is hostile refuses now and then, unless the page is a GHCB: without that VMPL0 does not start. */
  #makeShared(cpu: Cpu, gfn: number): void {
    const isMessage = gfn * PAGE_SIZE >= svsmMessageGpa(SVSM)
    const refuses = this.options.isHostHostile && isMessage && this.#schedule.int(0, 2) === 0
    if (!refuses) this.rmp.rmpupdate(gfn + FRAME_OFFSET, false, PAGE_4K, false, 0, 0)
    this.#respond(cpu, GHCB_MSR.PSC_RESPONSE, refuses ? 1 : 0)
  }

  #respond(cpu: Cpu, lo: number, hi: number): void {
    this.host.write64(vmcbOf(cpu) + VMCB.ghcb_gpa, lo, hi)
  }
}
