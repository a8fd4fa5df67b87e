import {
  apVmsa,
  type MessageOutcome,
  MIGRATION_ROLE,
  PROTOCOL,
  pvalidateList,
  SVSM_RESULT,
  TPM_SEND_COMMAND
} from "@vmpl-lab/guest"
import { PAGE_4K, PERMISSION, Rmp, type RmpEntry } from "@vmpl-lab/rmp"
import {
  EXIT,
  GHCB,
  GHCB_MSR,
  INTERCEPT,
  msrInfo,
  NESTED_CTL,
  NPF_INFO1,
  NPF_INFO1_HI,
  PAGE_SIZE,
  SEV_FEATURES,
  VMCB,
  VMSA,
  validByte,
  validMask
} from "@vmpl-lab/sev-es"
import { CostTable, Host, PRIMITIVES, type Profile } from "@vmpl-lab/sim"
import {
  ATTEST_OPERATION_FIELDS,
  BEHAVIOUR,
  type FirmwareMessages,
  type GuestVmsa,
  type HandlerPort,
  handledCalls,
  handledService,
  type Migration,
  NO_LOCK,
  RwLock,
  requestLoop,
  SHIPPED_PROTOCOLS,
  SvsmState,
  type TpmPort,
  vtpm
} from "@vmpl-lab/svsm"
import {
  HOST_ASID,
  HostMemory,
  hlt,
  NestedPageTable,
  OP,
  type Operation,
  OutsidePort,
  PhysicalMemory,
  Processor,
  type Program,
  ProgramMemory,
  runGuest,
  vmrun,
  work
} from "@vmpl-lab/vmpl"
import {
  ALL,
  ASID,
  BUFFER,
  BUFFER_PAGES,
  type Call,
  CPUS,
  type Cpu,
  FRAME_OFFSET,
  GFN,
  GUEST_VMSA0,
  list,
  OPERATION,
  P,
  PAGES,
  RACE_CALLS,
  type Race,
  REPLY,
  SERVICE,
  SVSM_GFN,
  SVSM_PAGES,
  type Without
} from "./raceCalls.ts"
import { migrationDigest, prepareMigration, READ_ONLY, raceMigration, recordForP } from "./raceMigration.ts"
import { replaced } from "./wrapped.ts"

const profile = {
  name: "test",
  machine: "none",
  primitives: Object.fromEntries(
    PRIMITIVES.map((name) => [name, { ns: 1, low: 1, high: 1, basis: "assumed", source: "none" }])
  ),
  sums: []
} as unknown as Profile

const COSTS = new CostTable(profile, 1)

/** What is hidden of marks and holds. */
const forgetful = (state: SvsmState, without: Without): void => {
  if (without === "marks") Object.assign(state.changing, { has: () => false, touchesRegion: () => false })
  if (without === "kept") Object.assign(state.kept, { has: () => false, touchesRegion: () => false })
  if (without === "holds") Object.assign(state.held, { findIndex: () => -1 })
}

/** The AMD-SP, which answers at once. */
const MESSAGES = {
  *report(): Program<MessageOutcome> {
    yield work(1)
    return { ok: true, payload: REPLY, certificates: new Uint8Array(0) }
  }
} as unknown as FirmwareMessages

/**
 * Two SVSM CPUs on real hardware, each with one call of its guest before it, that go on one operation at a time: the
 * test is the scheduler.
 */
export class RaceMachine {
  readonly state: SvsmState
  readonly done = [false, false]
  /** What went wrong, or null. */
  violation: string | null = null
  readonly #ports: { readonly tpm: TpmPort; readonly handler: HandlerPort } = {
    tpm: new OutsidePort(),
    handler: new OutsidePort()
  }
  readonly #rmp = new Rmp({ pages: 0x200 })
  readonly #memory = new PhysicalMemory(0x200)
  readonly #host = new HostMemory(this.#memory, this.#rmp)
  readonly #cpus: ReadonlyArray<Processor>
  /** What each CPU has done and what came of it, as a running hash. */
  readonly #history = [0, 0]
  /** What each CPU is about to do: what its program has decided, of which its history does not tell yet. */
  readonly #next = ["", ""]

  readonly #migration: Migration | null
  /** The latest operation of each CPU. */
  readonly #latest: Array<Operation | null> = [null, null]

  constructor(race: Race) {
    const { calls, start, without, behaviour = "specification" } = race
    const { protocols, migration } = raceMigration(race)
    this.#migration = migration
    const { tpm, handler } = this.#ports
    const rule = {
      call: 0,
      buffers: [{ register: "rcx", size: REPLY.length, align: 1 }],
      words: [],
      costNs: 0
    } as const
    const services = [
      vtpm(tpm),
      handledService(SERVICE, { MIN: 1, MAX: 1 }, handledCalls([rule], handler)),
      ...protocols
    ]
    this.state = new SvsmState([...SHIPPED_PROTOCOLS, ...services], without === "lock" ? NO_LOCK : new RwLock())
    this.state.behaviour = BEHAVIOUR[behaviour]
    this.state.messages = MESSAGES
    forgetful(this.state, without)
    this.#memory.setKey(
      ASID,
      new Uint8Array(32).map((_, i) => i + 1)
    )
    const npt = new NestedPageTable()
    for (let gfn = 0; gfn < PAGES; gfn++) {
      npt.map(gfn, gfn + FRAME_OFFSET)
      this.#memory.replace(gfn + FRAME_OFFSET, ASID, null)
      const isOwn = gfn >= SVSM_GFN
      const validated = isOwn || gfn !== GFN.P || start !== "unvalidated"
      const granted = isOwn || !validated || (gfn === GFN.P && start === "deposited") ? 0 : ALL
      const least = gfn === GFN.P && start === "guarded" ? READ_ONLY : granted
      const isOpen = behaviour === "specification" && migration === null
      const perms = [ALL, isOpen ? granted : 0, least, 0] as const
      this.#set(gfn, { assigned: true, asid: ASID, gfn, validated, perms })
      if (!isOwn && validated) this.state.validated.add(gfn)
    }
    const svsm = { gpa: SVSM_GFN * PAGE_SIZE, size: SVSM_PAGES * PAGE_SIZE }
    this.state.parameters = {
      vcpus: 4,
      ramSize: svsm.gpa,
      highRam: { gpa: BUFFER, size: BUFFER_PAGES * PAGE_SIZE },
      guestVmpl: 2,
      entriesPerCall: 0,
      svsm,
      firmware: { gpa: 0, size: 0 },
      resetVector: 0,
      secretsGpa: 0,
      cpuidGpa: 0,
      callingAreaGpa: 0,
      callingAreaLaunched: true,
      preValidated: []
    }
    this.state.startUpFeatures = SEV_FEATURES.SNPActive
    this.state.served.push([], [], [], [])
    this.#guest({ vmsaGpa: GUEST_VMSA0, caGpa: GFN.CA0 * PAGE_SIZE, apicId: 0, vmpl: 2, guestOwned: false })
    const vmsaGpa = GFN.VMSA1 * PAGE_SIZE
    this.#guest({ vmsaGpa, caGpa: GFN.CA1 * PAGE_SIZE, apicId: 1, vmpl: 2, guestOwned: true })
    for (const gfn of [GFN.P, GFN.Q]) this.#makeVmsa(gfn, 2)
    // As good as a VMSA as before, and a command for the TPM: of one byte, at locality 0.
    this.#view(GFN.P).setUint32(0, TPM_SEND_COMMAND, true)
    this.#view(GFN.P).setUint32(4, 1 << 8, true)
    if (start === "deposited") this.state.deposited.set(GFN.P, 2)
    if (start === "vmsa" || start === "parked")
      this.#guest({ vmsaGpa: P, caGpa: GFN.Q * PAGE_SIZE, apicId: 2, vmpl: 2, guestOwned: true })
    for (let gfn: number = PAGES; gfn < BUFFER / PAGE_SIZE + BUFFER_PAGES; gfn++) npt.map(gfn, gfn + FRAME_OFFSET)
    if (migration !== null) prepareMigration(this.state, migration, race)
    if (calls.includes("import")) this.#bring(recordForP())
    this.#cpus = CPUS.map((cpu) => this.#cpu(cpu, npt))
    for (const cpu of CPUS) this.#pend(cpu, RACE_CALLS[calls[cpu]](cpu))
    for (const cpu of CPUS) this.step(cpu)
  }

  /** Lets a CPU execute one operation, and go on to the next. */
  step(cpu: Cpu): void {
    const processor = this.#cpus[cpu]!
    let code: number
    do {
      if (vmrun(processor, (2 * cpu + 1) * PAGE_SIZE) !== "entered") throw new Error("VMRUN of VMPL0 fails")
      code = runGuest(processor, Infinity)
    } while (this.#isServed(cpu, code))
    if (code === EXIT.VMGEXIT) {
      const request = this.#host.read32((2 * cpu + 1) * PAGE_SIZE + VMCB.ghcb_gpa)
      if (request === GHCB_MSR.RUN_VMPL_REQUEST) this.done[cpu] = true
      else this.#fail(`the SVSM gives up on CPU ${cpu}`)
    } else if (code !== EXIT.HLT) this.#fail(`the SVSM is shut down on CPU ${cpu}, exit 0x${code.toString(16)}`)
    this.#check()
  }

  /** An honest host serves events of the GHCB page, and faults, at once. */
  #isServed(cpu: Cpu, code: number): boolean {
    const msr = this.#host.read32((2 * cpu + 1) * PAGE_SIZE + VMCB.ghcb_gpa)
    if (code === EXIT.NPF) return this.#convert(cpu)
    if (code !== EXIT.VMGEXIT || msrInfo(msr) !== 0) return false
    this.#changePages(msr)
    return true
  }

  /** The host has done what the SVSM asks in its GHCB: all pages are the guest's already. */
  #changePages(ghcbGpa: number): void {
    const at = (ghcbGpa / PAGE_SIZE + FRAME_OFFSET) * PAGE_SIZE
    const end = this.#host.read32(at + GHCB.shared_buffer) >>> 16
    this.#host.write32(at + GHCB.shared_buffer, (end << 16) | (end + 1))
    this.#host.write64(at + GHCB.sw_exit_info_1, 0, 0)
    this.#host.write64(at + GHCB.sw_exit_info_2, 0, 0)
    const valid = at + validByte(GHCB.sw_exit_info_2)
    this.#host.write8(valid, this.#host.read8(valid) | validMask(GHCB.sw_exit_info_2))
  }

  /** The host makes a page of the buffer private that the guest has the SVSM validate. @returns whether it is one */
  #convert(cpu: Cpu): boolean {
    const { address, cbit } = this.#latest[cpu]!
    const gfn = Math.floor(address / PAGE_SIZE)
    if (!cbit || address < BUFFER || this.#entry(gfn).assigned) return false
    this.#memory.replace(gfn + FRAME_OFFSET, ASID, null)
    this.#rmp.rmpupdate(gfn + FRAME_OFFSET, true, PAGE_4K, false, gfn, ASID)
    return true
  }

  /** The host fills the buffer. */
  #bring(bytes: Uint8Array): void {
    for (let page = 0; page < BUFFER_PAGES; page++) {
      const contents = new Uint8Array(PAGE_SIZE)
      contents.set(bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE))
      this.#memory.replace(BUFFER / PAGE_SIZE + page + FRAME_OFFSET, HOST_ASID, contents)
    }
  }

  /** Everything that what comes next depends on. */
  digest(): string {
    const { registry, served, serving, deposited, held, lock } = this.state
    const pages = Array.from({ length: GFN.END }, (_, gfn) => {
      const { validated, vmsa, perms } = this.#entry(gfn)
      const { validated: known, changing, kept } = this.state
      const marks = `${known.has(gfn) ? "v" : ""}${changing.has(gfn) ? "c" : ""}${kept.has(gfn) ? "k" : ""}`
      return `${validated ? 1 : 0}${vmsa ? 1 : 0}${perms.join("")}${marks}${this.#sample(gfn)}`
    })
    const vmsas = (all: ReadonlyArray<GuestVmsa | undefined>): string =>
      all.map((one) => `${one?.vmsaGpa}.${one?.caGpa}`).join()
    const shared = [vmsas(registry), served.map(vmsas).join("/"), vmsas(serving), [...deposited].join(), held.join()]
    const locked = lock instanceof RwLock ? lock.held : ""
    const own = [this.#history.join(), this.#next.join(), this.done.join()]
    const moving = this.#migration === null ? [] : [migrationDigest(this.#migration), this.#buffer()]
    return [...own, ...pages, ...shared, locked, ...moving].join("|")
  }

  /** Results of both calls, once both are done. */
  results(): string {
    return [GUEST_VMSA0, GFN.VMSA1 * PAGE_SIZE]
      .map((gpa) =>
        this.#view(gpa / PAGE_SIZE)
          .getUint32(VMSA.rax, true)
          .toString(16)
      )
      .join(" ")
  }

  #guest(vmsa: GuestVmsa): void {
    this.state.register(vmsa)
    this.#makeVmsa(vmsa.vmsaGpa / PAGE_SIZE, vmsa.vmpl)
    const perms = vmsa.guestOwned ? ([ALL, 0, 1, 0] as const) : ([ALL, 0, 0, 0] as const)
    this.#set(vmsa.vmsaGpa / PAGE_SIZE, { vmsa: true, perms })
  }

  #makeVmsa(gfn: number, vmpl: number, codeBase = 0): void {
    const bytes = apVmsa({ vmpl, sevFeatures: SEV_FEATURES.SNPActive, codeBase, rip: 0x10, argument: 0 })
    this.#memory.replace(gfn + FRAME_OFFSET, ASID, bytes)
  }

  /** VMSA and code of the SVSM on one CPU: before each operation it stops. */
  #cpu(cpu: Cpu, npt: NestedPageTable): Processor {
    const gfn = SVSM_GFN + 1 + cpu
    this.#makeVmsa(gfn, 0, SVSM_GFN * PAGE_SIZE)
    this.#set(gfn, { vmsa: true })
    const programs = new ProgramMemory()
    const { state } = this
    const note = (value: number): void => {
      this.#history[cpu] = (Math.imul(this.#history[cpu]! ^ value, 0x0100_0193) + 0x9e37) | 0
    }
    const done = (): void => {
      this.done[cpu] = true
    }
    const latest = (operation: Operation): void => {
      this.#latest[cpu] = operation
    }
    const decided = ({ op, address, lo }: Operation): void => {
      this.#next[cpu] = `${op}.${address}.${lo}`
    }
    const watch = (operation: Operation): void => this.#watch(operation)
    const answer = (): void => this.#answer()
    const steps = function* (operation: Operation): Program {
      if (operation.op === OP.HLT) done()
      if (operation.op === OP.OUTSIDE) answer()
      decided(operation)
      yield hlt()
      latest(operation)
      watch(operation)
      const result = yield operation
      if (operation.op === OP.PAUSE) return
      for (const value of [operation.op, operation.address, operation.lo, result.lo, result.hi]) note(value)
    }
    programs.install(SVSM_GFN * PAGE_SIZE + 0x10, () =>
      // Its outcome is what the operation left: nothing comes after it.
      replaced(requestLoop(state, cpu), steps)
    )
    const vmcb = (2 * cpu + 1) * PAGE_SIZE
    const ncr3 = (2 * cpu + 2) * PAGE_SIZE
    this.#host.write32(vmcb + VMCB.asid, ASID)
    const control = NESTED_CTL.NP_ENABLE | NESTED_CTL.SEV_ENABLE | NESTED_CTL.SEV_ES_ENABLE
    this.#host.write64(vmcb + VMCB.nested_ctl, control, 0)
    this.#host.write32(vmcb + VMCB.intercept_word3, 1 << (INTERCEPT.HLT & 31))
    this.#host.write64(vmcb + VMCB.nested_cr3, ncr3, 0)
    this.#host.write64(vmcb + VMCB.vmsa_pa, (gfn + FRAME_OFFSET) * PAGE_SIZE, 0)
    const thread = new Host(1, COSTS).spawn("cpu", -1)
    const nestedTables = new Map([[ncr3, npt]])
    const hardware = { memory: this.#memory, rmp: this.#rmp, host: this.#host, programs, nestedTables }
    return new Processor({ ...hardware, executions: new Map() }, thread)
  }

  /** What is outside of the simulation answers before anybody else goes on: the copies are what is explored. */
  #answer(): void {
    const { tpm, handler } = this.#ports
    if (tpm.open !== undefined) tpm.answer({ response: REPLY, ns: 0 })
    const question = handler.open
    if (question === undefined) return
    const { event } = question.ask
    if (event.kind === "called") handler.answer({ kind: "write", gpa: event.call.buffers[0]!.gpa, from: REPLY })
    else handler.answer({ kind: "done", result: event.isThere ? 0 : SVSM_RESULT.INVALID_ADDRESS, reply: {} })
  }

  /** What the SVSM copies for its callers goes where they could have written themselves. */
  #watch({ op, address, cbit }: Operation): void {
    if (op !== OP.WRITE_BYTES || !cbit || this.#migration?.role === MIGRATION_ROLE.TARGET) return
    const gfn = Math.floor(address / PAGE_SIZE)
    if ((this.#entry(gfn).perms[2]! & PERMISSION.WRITE) === 0)
      this.#fail(`the SVSM copies to page ${gfn}, not the guest's`)
  }

  #pend(cpu: Cpu, { protocol = PROTOCOL.CORE, call, rcx, rdx = 0, r8 = 2 + cpu, faults, entries }: Call): void {
    const vmsa = this.#view(cpu === 0 ? GUEST_VMSA0 / PAGE_SIZE : GFN.VMSA1)
    for (const [offset, value] of [
      [VMSA.rax, call],
      [VMSA.rax + 4, protocol],
      [VMSA.rcx, rcx],
      [VMSA.rdx, rdx],
      [VMSA.r8, r8],
      [VMSA.guest_exit_code, faults ? EXIT.NPF : EXIT.VMGEXIT],
      [VMSA.guest_exit_info_1, NPF_INFO1.P | NPF_INFO1.W],
      [VMSA.guest_exit_info_1 + 4, NPF_INFO1_HI.VMPL],
      [VMSA.guest_exit_info_2, P]
    ] as const)
      vmsa.setUint32(offset, value, true)
    this.#view(cpu === 0 ? GFN.CA0 : GFN.CA1).setUint8(0, faults ? 0 : 1)
    if (protocol === PROTOCOL.ATTESTATION) this.#writeOperation(cpu)
    if (entries === undefined) return
    const bytes = pvalidateList(entries.map(([gpa, validate]) => ({ gpa, validate })))
    const view = this.#view(list(cpu) / PAGE_SIZE)
    new Uint8Array(view.buffer, view.byteOffset, bytes.length).set(bytes)
  }

  /** An attestation whose nonce is in the list's page and whose report goes to P. */
  #writeOperation(cpu: Cpu): void {
    const view = this.#view(list(cpu) / PAGE_SIZE)
    const field = (name: string): number =>
      OPERATION + ATTEST_OPERATION_FIELDS.find((one) => one.field === name)!.offset
    for (const [name, gpa, size] of [
      ["report", P, PAGE_SIZE],
      ["nonce", list(cpu) + OPERATION + 0x400, 64],
      ["manifest", GFN.SPARE * PAGE_SIZE, PAGE_SIZE]
    ] as const) {
      view.setUint32(field(`${name}_gpa`), gpa, true)
      view.setUint16(field(`${name}_size`), size, true)
    }
  }

  /** What must hold after every step, and what once both calls are done. */
  #check(): void {
    for (let gfn = 0; gfn < PAGES; gfn++) {
      const { vmsa, perms } = this.#entry(gfn)
      if (vmsa && perms.slice(1).some((mask) => (mask & ~1) !== 0)) this.#fail(`the guest may write VMSA ${gfn}`)
      if (gfn >= SVSM_GFN && perms.slice(1).some((mask) => mask !== 0)) this.#fail(`the guest may use SVSM page ${gfn}`)
    }
    const pages = this.state.registry.flatMap(({ vmsaGpa, caGpa }) => [vmsaGpa, caGpa])
    if (new Set(pages).size !== pages.length) this.#fail("a page is a VMSA or a calling area twice")
    if (this.done[0] && this.done[1] && this.violation === null) this.#checkEnd()
  }

  #checkEnd(): void {
    const { registry, deposited, validated } = this.state
    for (let gfn = 0; gfn < GFN.END; gfn++) {
      const entry = this.#entry(gfn)
      const isVmsa = registry.some(({ vmsaGpa }) => vmsaGpa === gfn * PAGE_SIZE)
      if (entry.validated !== validated.has(gfn)) this.#fail(`page ${gfn} is not what the SVSM takes it for`)
      if (entry.vmsa !== isVmsa) this.#fail(`page ${gfn} ${isVmsa ? "should be" : "is"} a VMSA`)
      const isArea = registry.some(({ caGpa }) => caGpa === gfn * PAGE_SIZE)
      if (isArea && !entry.validated) this.#fail(`the calling area ${gfn} is not validated`)
      if (deposited.has(gfn) && entry.perms.slice(1).some((mask) => mask !== 0)) this.#fail(`deposit ${gfn} is usable`)
    }
    for (const vmsa of this.state.served.flat())
      if (vmsa !== undefined && !registry.includes(vmsa))
        this.#fail(`page ${vmsa.vmsaGpa / PAGE_SIZE} is served, no VMSA`)
  }

  #fail(why: string): void {
    this.violation ??= why
  }

  #entry(gfn: number): RmpEntry {
    return this.#rmp.entry(gfn + FRAME_OFFSET)
  }

  #set(gfn: number, fields: Partial<RmpEntry>): void {
    this.#rmp.firmwareSet(gfn + FRAME_OFFSET, { size: PAGE_4K, ...fields })
  }

  #view(gfn: number): DataView {
    const view = this.#memory.write(gfn + FRAME_OFFSET, ASID)
    return new DataView(view.buffer, view.byteOffset, PAGE_SIZE)
  }

  /** What the buffer's pages are. */
  #buffer(): string {
    return Array.from({ length: BUFFER_PAGES }, (_, page) => {
      const gfn = BUFFER / PAGE_SIZE + page
      const { assigned, validated } = this.#entry(gfn)
      return `${assigned}${validated}${this.state.validated.has(gfn)}${this.state.changing.has(gfn)}`
    }).join()
  }

  /** What of a page the calls read. */
  #sample(gfn: number): string {
    const view = this.#view(gfn)
    const offsets = [0, 4, 8, 16, VMSA.vmpl, VMSA.efer, VMSA.sev_features, VMSA.rax, VMSA.rcx]
    return offsets.map((offset) => view.getUint32(offset, true).toString(36)).join(".")
  }
}
