import {
  ATTESTATION_CALL,
  apVmsa,
  CORE_CALL,
  type MessageOutcome,
  PROTOCOL,
  pvalidateList,
  SVSM_RESULT,
  TPM_SEND_COMMAND,
  VTPM_CALL
} from "@vmpl-lab/guest"
import { PAGE_4K, PERMISSION, Rmp, type RmpEntry } from "@vmpl-lab/rmp"
import { EXIT, GHCB_MSR, INTERCEPT, NESTED_CTL, PAGE_SIZE, SEV_FEATURES, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { CostTable, Host, PRIMITIVES, type Profile } from "@vmpl-lab/sim"
import {
  ATTEST_OPERATION_FIELDS,
  BEHAVIOUR,
  type FirmwareMessages,
  type GuestVmsa,
  type HandlerPort,
  handledCalls,
  handledService,
  NO_LOCK,
  RwLock,
  requestLoop,
  SHIPPED_PROTOCOLS,
  type SvsmBehaviour,
  SvsmState,
  type TpmPort,
  vtpm
} from "@vmpl-lab/svsm"
import {
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
import { replaced } from "./wrapped.ts"

/** What is taken away from the SVSM to see what it is there for. */
export type Without = "nothing" | "lock" | "marks" | "holds"

/** Two calls that race. */
export interface Race {
  readonly calls: readonly [RaceCall, RaceCall]
  readonly start: Start
  readonly without: Without
  /** The specification's when left out. */
  readonly behaviour?: SvsmBehaviour
}

/** Guest pages, by GFN. P is what the calls are about. */
const GFN = { CA0: 1, CA1: 2, LIST0: 3, LIST1: 4, P: 5, Q: 6, VMSA1: 7, SPARE: 8, END: 9 } as const
const SVSM_GFN = 9
const SVSM_PAGES = 4
const GUEST_VMSA0 = (SVSM_GFN + 3) * PAGE_SIZE
const P = GFN.P * PAGE_SIZE
const PAGES = SVSM_GFN + SVSM_PAGES
const FRAME_OFFSET = 0x20
const ASID = 1
const ALL = 0xf
const CPUS = [0, 1] as const
export type Cpu = (typeof CPUS)[number]

/** How page P begins. */
export type Start = "validated" | "unvalidated" | "vmsa" | "deposited"

/** Protocol of a service with one buffer. */
const SERVICE = 0x4000_0000
/** Where in a list's page the operation of the attestation protocol is. */
const OPERATION = 0x800
/** What is copied into a guest's buffer, by whichever service. */
const REPLY = new Uint8Array(32).fill(0xee)

const list = (cpu: Cpu): number => (cpu === 0 ? GFN.LIST0 : GFN.LIST1) * PAGE_SIZE
interface Call {
  readonly protocol?: number
  readonly call: number
  readonly rcx: number
  readonly rdx?: number
  readonly entries?: ReadonlyArray<readonly [gpa: number, validate: boolean]>
}
const listed = (cpu: Cpu, call: number, entries: Call["entries"]): Call => ({ call, rcx: list(cpu), entries: entries! })

/** Calls that a vCPU may make, by name. */
export const RACE_CALLS = {
  validate: (cpu: Cpu) => listed(cpu, CORE_CALL.PVALIDATE, [[P, true]]),
  rescind: (cpu: Cpu) => listed(cpu, CORE_CALL.PVALIDATE, [[P, false]]),
  "rescind and validate": (cpu: Cpu) =>
    listed(cpu, CORE_CALL.PVALIDATE, [
      [P, false],
      [P, true]
    ]),
  "rescind the other's list": (cpu: Cpu) => listed(cpu, CORE_CALL.PVALIDATE, [[list(cpu === 0 ? 1 : 0), false]]),
  create: () => ({ call: CORE_CALL.CREATE_VCPU, rcx: P, rdx: GFN.Q * PAGE_SIZE }),
  "create with its area in P": () => ({ call: CORE_CALL.CREATE_VCPU, rcx: GFN.Q * PAGE_SIZE, rdx: P }),
  remap: () => ({ call: CORE_CALL.REMAP_CA, rcx: P }),
  delete: () => ({ call: CORE_CALL.DELETE_VCPU, rcx: P }),
  "delete the other": (cpu: Cpu) => ({
    call: CORE_CALL.DELETE_VCPU,
    rcx: cpu === 0 ? GFN.VMSA1 * PAGE_SIZE : GUEST_VMSA0
  }),
  deposit: (cpu: Cpu) => listed(cpu, CORE_CALL.DEPOSIT_MEM, [[P, false]]),
  withdraw: (cpu: Cpu) => ({ call: CORE_CALL.WITHDRAW_MEM, rcx: list(cpu) }),
  "withdraw to P": () => ({ call: CORE_CALL.WITHDRAW_MEM, rcx: P }),
  "TPM command in P": () => ({ protocol: PROTOCOL.VTPM, call: VTPM_CALL.COMMAND, rcx: P }),
  "report to P": (cpu: Cpu) => ({
    protocol: PROTOCOL.ATTESTATION,
    call: ATTESTATION_CALL.ATTEST_SERVICES,
    rcx: list(cpu) + OPERATION
  }),
  "service that fills P": () => ({ protocol: SERVICE, call: 0, rcx: P })
} as const satisfies Record<string, (cpu: Cpu) => Call>
export type RaceCall = keyof typeof RACE_CALLS

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

  constructor({ calls, start, without, behaviour = "specification" }: Race) {
    const { tpm, handler } = this.#ports
    const rule = {
      call: 0,
      buffers: [{ register: "rcx", size: REPLY.length, align: 1 }],
      words: [],
      costNs: 0
    } as const
    const services = [vtpm(tpm), handledService(SERVICE, { MIN: 1, MAX: 1 }, handledCalls([rule], handler))]
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
      const perms = [ALL, behaviour === "coconut" ? 0 : granted, granted, 0] as const
      this.#set(gfn, { assigned: true, asid: ASID, gfn, validated, perms })
      if (!isOwn && validated) this.state.validated.add(gfn)
    }
    const svsm = { gpa: SVSM_GFN * PAGE_SIZE, size: SVSM_PAGES * PAGE_SIZE }
    this.state.parameters = {
      vcpus: 4,
      ramSize: svsm.gpa,
      highRam: { gpa: 0, size: 0 },
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
    if (start === "vmsa") this.#guest({ vmsaGpa: P, caGpa: GFN.Q * PAGE_SIZE, apicId: 2, vmpl: 2, guestOwned: true })
    this.#cpus = CPUS.map((cpu) => this.#cpu(cpu, npt))
    for (const cpu of CPUS) this.#pend(cpu, RACE_CALLS[calls[cpu]](cpu))
    for (const cpu of CPUS) this.step(cpu)
  }

  /** Lets a CPU execute one operation, and go on to the next. */
  step(cpu: Cpu): void {
    const processor = this.#cpus[cpu]!
    if (vmrun(processor, (2 * cpu + 1) * PAGE_SIZE) !== "entered") throw new Error("VMRUN of VMPL0 fails")
    const code = runGuest(processor, Infinity)
    if (code === EXIT.VMGEXIT) {
      const request = this.#host.read32((2 * cpu + 1) * PAGE_SIZE + VMCB.ghcb_gpa)
      if (request === GHCB_MSR.RUN_VMPL_REQUEST) this.done[cpu] = true
      else this.#fail(`the SVSM gives up on CPU ${cpu}`)
    } else if (code !== EXIT.HLT) this.#fail(`the SVSM is shut down on CPU ${cpu}, exit 0x${code.toString(16)}`)
    this.#check()
  }

  /** Everything that what comes next depends on. */
  digest(): string {
    const { registry, served, serving, deposited, held, lock } = this.state
    const pages = Array.from({ length: GFN.END }, (_, gfn) => {
      const { validated, vmsa, perms } = this.#entry(gfn)
      const marks = `${this.state.validated.has(gfn) ? "v" : ""}${this.state.changing.has(gfn) ? "c" : ""}`
      return `${validated ? 1 : 0}${vmsa ? 1 : 0}${perms.join("")}${marks}${this.#sample(gfn)}`
    })
    const vmsas = (all: ReadonlyArray<GuestVmsa | undefined>): string =>
      all.map((one) => `${one?.vmsaGpa}.${one?.caGpa}`).join()
    const shared = [vmsas(registry), served.map(vmsas).join("/"), vmsas(serving), [...deposited].join(), held.join()]
    const locked = lock instanceof RwLock ? lock.held : ""
    return [this.#history.join(), this.#next.join(), this.done.join(), ...pages, ...shared, locked].join("|")
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
  #watch({ op, address }: Operation): void {
    if (op !== OP.WRITE_BYTES) return
    const gfn = Math.floor(address / PAGE_SIZE)
    if ((this.#entry(gfn).perms[2]! & PERMISSION.WRITE) === 0)
      this.#fail(`the SVSM copies to page ${gfn}, not the guest's`)
  }

  #pend(cpu: Cpu, { protocol = PROTOCOL.CORE, call, rcx, rdx = 0, entries }: Call): void {
    const vmsa = this.#view(cpu === 0 ? GUEST_VMSA0 / PAGE_SIZE : GFN.VMSA1)
    for (const [offset, value] of [
      [VMSA.rax, call],
      [VMSA.rax + 4, protocol],
      [VMSA.rcx, rcx],
      [VMSA.rdx, rdx],
      [VMSA.r8, 2 + cpu],
      [VMSA.guest_exit_code, EXIT.VMGEXIT]
    ] as const)
      vmsa.setUint32(offset, value, true)
    this.#view(cpu === 0 ? GFN.CA0 : GFN.CA1).setUint8(0, 1)
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

  /** What of a page the calls read. */
  #sample(gfn: number): string {
    const view = this.#view(gfn)
    const offsets = [0, 4, 8, 16, VMSA.vmpl, VMSA.efer, VMSA.sev_features, VMSA.rax, VMSA.rcx]
    return offsets.map((offset) => view.getUint32(offset, true).toString(36)).join(".")
  }
}
