import { apVmsa, GUEST_VMPL, vcHandler } from "@vmpl-lab/guest"
import { PAGE_4K, Rmp, type RmpEntry } from "@vmpl-lab/rmp"
import {
  EXIT,
  GHCB_MSR,
  getU64,
  INTERCEPT,
  NESTED_CTL,
  PAGE_SIZE,
  SEV_FEATURES,
  setU64,
  toNumber,
  VMCB,
  VMSA
} from "@vmpl-lab/sev-es"
import { CostTable, Host, PRIMITIVES, type Profile } from "@vmpl-lab/sim"
import { BEHAVIOUR, requestLoop, SHIPPED_PROTOCOLS, type SvsmBehaviour, SvsmState } from "@vmpl-lab/svsm"
import {
  HostMemory,
  lidt,
  NestedPageTable,
  type Operation,
  type OperationResult,
  PhysicalMemory,
  Processor,
  type Program,
  ProgramMemory,
  runGuest,
  vmrun
} from "@vmpl-lab/vmpl"
import { traced } from "./wrapped.ts"

export const MIB = 0x10_0000
/** What of guest physical memory the SVSM believes in; its own range follows RAM. */
export const RAM_SIZE = 4 * MIB
export const SVSM = { gpa: RAM_SIZE, size: 2 * MIB } as const
export const FIRMWARE = { gpa: 8 * MIB, size: 16 * PAGE_SIZE } as const
export const VCPUS = 4

/** Pages of the test guest: everything in the first half of RAM is validated and the guest's, the rest is not yet. */
export const CA = 0x1_0000
export const OTHER_CA = 0x1_1000
export const LIST = 0x1_2000
export const PAGE = 0x1_3000
export const UNVALIDATED = 3 * MIB + 0x5000
const VALIDATED_UP_TO = 2 * MIB

/** Pages of the SVSM: its code, its own VMSA, the VMSA of the guest's boot processor. */
const SVSM_CODE = SVSM.gpa
const SVSM_VMSA = SVSM.gpa + 0x1000
export const GUEST_VMSA = SVSM.gpa + 0x3000
export const SVSM_DATA = SVSM.gpa + 0x6000

const ASID = 1
const VMCB_PFN = 1
const NCR3_PFN = 2
const OTHER_VMCB_PFN = 3
/** System frames lie elsewhere than guest frames, so that a mixed-up pair shows. */
const FRAME_OFFSET = 0x100
/** A frame that no page of the guest has. */
const FOREIGN_PFN = 0xf00
const ALL = 0xf

const profile = {
  name: "test",
  machine: "none",
  primitives: Object.fromEntries(
    PRIMITIVES.map((name) => [name, { ns: 1, low: 1, high: 1, basis: "assumed", source: "none" }])
  ),
  sums: []
} as unknown as Profile

/** What comes before the calls on every CPU of the SVSM, and the calls. */
function* svsmProcessor(state: SvsmState): Program {
  yield lidt(vcHandler)
  yield* requestLoop(state, 0)
}

export interface CallRegisters {
  readonly rcx?: number | readonly [hi: number, lo: number]
  readonly rdx?: number | readonly [hi: number, lo: number]
  readonly r8?: number | readonly [hi: number, lo: number]
}

/** What a call came to, as the guest sees it. */
export interface CallOutcome {
  readonly result: number
  readonly rcx: number
  readonly rdx: number
  readonly r8: number
  readonly pending: number
}

/** A memory access of the SVSM. */
export interface Seen {
  readonly operation: Operation
  readonly lo: number
}

/**
 * One SVSM CPU on real hardware, with its guest and its host played by the test: no KVM, no guest program. The test
 * sets bytes as guest or hardware would, lets VMPL0 run to its next exit, and looks at bytes again.
 */
export class ScriptedHost {
  readonly state: SvsmState
  readonly rmp = new Rmp({ pages: 0x1000 })
  readonly #memory = new PhysicalMemory(0x1000)
  readonly #npt = new NestedPageTable()
  /** Frames that are not where they began, by GFN. */
  readonly #moved = new Map<number, number>()
  readonly #cpu: Processor
  readonly #otherCpu: Processor
  readonly #host = new HostMemory(this.#memory, this.rmp)
  /** Everything that the SVSM did since this was last emptied. */
  readonly seen: Array<Seen> = []
  /** Called before the test's `seen` entry is made: the test may meddle between two steps of the SVSM. */
  meddle: ((operation: Operation) => void) | null = null
  /** Called after a step: the test may have had the hardware answer otherwise. */
  pretend: ((operation: Operation, result: OperationResult) => void) | null = null

  constructor(behaviour: SvsmBehaviour = "specification", protocols = SHIPPED_PROTOCOLS) {
    this.state = new SvsmState(protocols)
    this.state.behaviour = BEHAVIOUR[behaviour]
    const npt = this.#npt
    const programs = new ProgramMemory()
    const thread = new Host(1, new CostTable(profile, 1)).spawn("cpu", -1)
    const nestedTables = new Map([[NCR3_PFN * PAGE_SIZE, npt]])
    const executions = new Map()
    const hardware = { memory: this.#memory, rmp: this.rmp, host: this.#host, programs, nestedTables, executions }
    this.#cpu = new Processor(hardware, thread)
    this.#otherCpu = new Processor(hardware, thread)
    this.#memory.setKey(
      ASID,
      new Uint8Array(32).map((_, i) => i + 1)
    )
    for (let gpa = 0; gpa < FIRMWARE.gpa + FIRMWARE.size; gpa += PAGE_SIZE) {
      const gfn = gpa / PAGE_SIZE
      npt.map(gfn, gfn + FRAME_OFFSET)
      const own = gpa >= SVSM.gpa && gpa < SVSM.gpa + SVSM.size
      const validated = own || gpa < VALIDATED_UP_TO || gpa >= FIRMWARE.gpa
      const perms = own || !validated ? ([ALL, 0, 0, 0] as const) : ([ALL, ALL, ALL, 0] as const)
      this.setEntry(gpa, { assigned: true, asid: ASID, gfn, validated, perms })
      if (validated && !own) this.state.validated.add(gfn)
    }
    this.state.parameters = {
      vcpus: VCPUS,
      ramSize: RAM_SIZE,
      highRam: { gpa: 0x1_0000_0000, size: 0 },
      guestVmpl: GUEST_VMPL,
      entriesPerCall: 0,
      svsm: SVSM,
      firmware: FIRMWARE,
      resetVector: FIRMWARE.gpa,
      secretsGpa: 0x2_0000,
      cpuidGpa: 0x2_1000,
      callingAreaGpa: CA,
      callingAreaLaunched: true,
      preValidated: []
    }
    this.state.startUpFeatures = SEV_FEATURES.SNPActive
    const served = { vmsaGpa: GUEST_VMSA, caGpa: CA, apicId: 0, vmpl: GUEST_VMPL, guestOwned: false }
    this.state.served.push([], [], [], [])
    this.state.register(served)
    this.#makeVmsa(SVSM_VMSA, 0, SVSM_CODE)
    this.#makeVmsa(GUEST_VMSA, GUEST_VMPL, FIRMWARE.gpa)
    programs.install(SVSM_CODE + 0x10, () =>
      traced(svsmProcessor(this.state), (operation, result: OperationResult) => {
        this.meddle?.(operation)
        this.pretend?.(operation, result)
        this.seen.push({ operation, lo: result.lo })
      })
    )
    const vmcb = VMCB_PFN * PAGE_SIZE
    this.#host.write32(vmcb + VMCB.asid, ASID)
    this.#host.write64(
      vmcb + VMCB.nested_ctl,
      NESTED_CTL.NP_ENABLE | NESTED_CTL.SEV_ENABLE | NESTED_CTL.SEV_ES_ENABLE,
      0
    )
    this.#host.write32(vmcb + VMCB.intercept_word3, 1 << (INTERCEPT.HLT & 31))
    this.#host.write64(vmcb + VMCB.nested_cr3, NCR3_PFN * PAGE_SIZE, 0)
    this.#host.write64(vmcb + VMCB.vmsa_pa, this.#frame(SVSM_VMSA) * PAGE_SIZE, 0)
  }

  /** Lets VMPL0 run to its next exit. @returns exit code and what it asks over the GHCB MSR */
  run(): { readonly code: number; readonly request: number; readonly argument: number } {
    const vmcb = VMCB_PFN * PAGE_SIZE
    const entered = vmrun(this.#cpu, vmcb)
    if (entered !== "entered") throw new Error(`VMRUN of VMPL0: ${entered}`)
    const code = runGuest(this.#cpu, Infinity)
    const ghcb = vmcb + VMCB.ghcb_gpa
    return { code, request: this.#host.read32(ghcb), argument: this.#host.read32(ghcb + 4) }
  }

  /** The host's answer to "run VMPL": done, or an error. */
  answer(error = 0): void {
    this.#host.write64(VMCB_PFN * PAGE_SIZE + VMCB.ghcb_gpa, GHCB_MSR.RUN_VMPL_RESPONSE, error)
  }

  /** From power-on to the SVSM's first wish to run the guest. */
  boot(): this {
    this.expectRunsGuest()
    this.seen.length = 0
    return this
  }

  /** Runs VMPL0 and insists that it wants VMPL2 to run next. */
  expectRunsGuest(): void {
    const { code, request, argument } = this.run()
    if (code === EXIT.VMGEXIT && request === GHCB_MSR.RUN_VMPL_REQUEST && argument === GUEST_VMPL) return
    throw new Error(`VMPL0 stops with exit 0x${code.toString(16)}, GHCB MSR 0x${request.toString(16)}, ${argument}`)
  }

  /** One SVSM call of the guest at VMPL2, from its registers to its result. */
  call(protocol: number, call: number, registers: CallRegisters = {}): CallOutcome {
    const served = this.state.served[0]![GUEST_VMPL]!
    this.setRegister("rax", [protocol, call])
    for (const name of ["rcx", "rdx", "r8"] as const) this.setRegister(name, registers[name] ?? 0)
    this.poke(served.caGpa).setUint8(0, 1)
    return this.enter(served.caGpa)
  }

  /** The guest has exited by VMGEXIT with whatever the test left in its registers and calling area. */
  enter(caGpa: number, exitCode: number = EXIT.VMGEXIT): CallOutcome {
    this.poke(GUEST_VMSA).setUint32(VMSA.guest_exit_code, exitCode, true)
    this.answer()
    this.expectRunsGuest()
    const { rax, rcx, rdx, r8 } = VMSA
    const view = this.peek(GUEST_VMSA)
    const [result, rcx_, rdx_, r8_] = [rax, rcx, rdx, r8].map((offset) => getU64(view, offset))
    return { result: result!, rcx: rcx_!, rdx: rdx_!, r8: r8_!, pending: this.peek(caGpa).getUint8(0) }
  }

  /** Sets a register of the guest's VMSA. */
  setRegister(name: keyof typeof VMSA, value: number | readonly [hi: number, lo: number]): void {
    const view = this.poke(GUEST_VMSA)
    if (typeof value === "number") setU64(view, VMSA[name], value)
    else {
      view.setUint32(VMSA[name] + 4, value[0], true)
      view.setUint32(VMSA[name], value[1], true)
    }
  }

  register(name: keyof typeof VMSA): number {
    return getU64(this.peek(GUEST_VMSA), VMSA[name])
  }

  /** A page's bytes as the guest's key shows them. */
  peek(gpa: number): DataView {
    const view = this.#memory.read(this.#frame(gpa), ASID)
    return new DataView(view.buffer, view.byteOffset + (gpa % PAGE_SIZE), PAGE_SIZE - (gpa % PAGE_SIZE))
  }

  /** The same, to be written: as the guest, or the hardware, does. */
  poke(gpa: number): DataView {
    const view = this.#memory.write(this.#frame(gpa), ASID)
    return new DataView(view.buffer, view.byteOffset + (gpa % PAGE_SIZE), PAGE_SIZE - (gpa % PAGE_SIZE))
  }

  /** The same of a page that the host has, which is plain bytes. */
  shared(gpa: number): DataView {
    const view = this.#memory.write(this.#frame(gpa), 0)
    return new DataView(view.buffer, view.byteOffset + (gpa % PAGE_SIZE), PAGE_SIZE - (gpa % PAGE_SIZE))
  }

  /** A page becomes the host's. */
  share(gpa: number): void {
    this.setEntry(gpa, { assigned: false, asid: 0, gfn: 0, validated: false, vmsa: false, perms: [ALL, 0, 0, 0] })
  }

  fill(gpa: number, value: number): void {
    const view = this.poke(gpa)
    new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).fill(value)
  }

  entry(gpa: number): RmpEntry {
    return this.rmp.entry(this.#frame(gpa))
  }

  setEntry(gpa: number, fields: Partial<RmpEntry>): void {
    this.rmp.firmwareSet(this.#frame(gpa), { size: PAGE_4K, ...fields })
  }

  /** SHA-free digest of the SVSM's own pages but its VMSA and what the guest's VMSA is for. */
  svsmBytes(): string {
    const pages: Array<string> = []
    for (let gpa = SVSM.gpa; gpa < SVSM.gpa + 16 * PAGE_SIZE; gpa += PAGE_SIZE) {
      if (gpa === SVSM_VMSA || gpa === GUEST_VMSA) continue
      const view = this.peek(gpa)
      pages.push(Buffer.from(view.buffer, view.byteOffset, PAGE_SIZE).toString("latin1"))
    }
    return pages.join("")
  }

  /** The host puts the frame of one page under the address of another, by RMPUPDATE and a nested mapping. */
  moveFrame(fromGpa: number, toGpa: number): void {
    const frame = this.#frame(fromGpa)
    this.setEntry(fromGpa, { gfn: toGpa / PAGE_SIZE, validated: false, vmsa: false, perms: [ALL, 0, 0, 0] })
    this.#npt.map(toGpa / PAGE_SIZE, frame)
    this.#moved.set(toGpa / PAGE_SIZE, frame)
  }

  /** The host has another frame behind an address, or the first one again with null, and changes nothing else. */
  remap(gpa: number, pfn: number | null): void {
    this.#npt.map(gpa / PAGE_SIZE, pfn ?? this.#frame(gpa))
  }

  /** A frame that is no page of this guest's: the host's own, or another guest's at the same address. */
  foreignFrame(kind: "host" | "other guest", gpa: number): { readonly pfn: number; readonly bytes: () => string } {
    const asid = kind === "host" ? 0 : ASID + 1
    const pfn = FOREIGN_PFN
    this.#memory.replace(pfn, asid, new Uint8Array(PAGE_SIZE).fill(0x11))
    const guests = { assigned: true, asid, gfn: gpa / PAGE_SIZE, validated: true, perms: [ALL, ALL, ALL, ALL] as const }
    if (kind === "other guest") this.rmp.firmwareSet(pfn, { size: PAGE_4K, ...guests })
    const bytes = (): string => Buffer.from(new Uint8Array(this.#memory.read(pfn, asid).buffer)).toString("base64")
    return { pfn, bytes }
  }

  frameOf(gpa: number): number {
    return this.#frame(gpa)
  }

  /** Another core is told to run a VMSA. @returns what comes of VMRUN */
  tryVmsa(gpa: number): ReturnType<typeof vmrun> {
    const vmcb = OTHER_VMCB_PFN * PAGE_SIZE
    this.#host.writePage(OTHER_VMCB_PFN, this.#host.readPage(VMCB_PFN))
    this.#host.write64(vmcb + VMCB.vmsa_pa, this.#frame(gpa) * PAGE_SIZE, 0)
    return vmrun(this.#otherCpu, vmcb)
  }

  /** A core is running this VMSA. */
  runVmsa(gpa: number): void {
    this.rmp.markInUse(this.#frame(gpa))
  }

  #frame(gpa: number): number {
    const gfn = Math.floor(gpa / PAGE_SIZE)
    return this.#moved.get(gfn) ?? gfn + FRAME_OFFSET
  }

  #makeVmsa(gpa: number, vmpl: number, codeBase: number): void {
    const bytes = apVmsa({ vmpl, sevFeatures: SEV_FEATURES.SNPActive, codeBase, rip: 0x10, argument: 0 })
    this.#memory.replace(this.#frame(gpa), ASID, bytes)
    this.setEntry(gpa, { vmsa: true, perms: [ALL, 0, 0, 0] })
  }
}

/** RCX of a returned pair. */
export const pair = (hi: number, lo: number): number => toNumber(lo, hi)
