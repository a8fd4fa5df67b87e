import { readFileSync } from "node:fs"
import {
  AP_TRAMPOLINE_GPA,
  apVmsa,
  BLOCK,
  blockOf,
  CALLING_AREA,
  CORE_CALL,
  Ghcb,
  GUEST_VMPL,
  PROTOCOL,
  pvalidateCapacity,
  pvalidateList,
  type Ring,
  SVSM_RESULT,
  SvsmCaller,
  vcHandler
} from "@vmpl-lab/guest"
import { STRATEGIES, type Strategy } from "@vmpl-lab/hv-strategies"
import { parseFirmware, syntheticFirmware } from "@vmpl-lab/hypervisor"
import { DEFAULT_SCENARIO, Machine, parseProfile, Scenario, svsmLaunch } from "@vmpl-lab/lab"
import { AP_CREATION, VMSA } from "@vmpl-lab/sev-es"
import type { Profile } from "@vmpl-lab/sim"
import { lidt, type Program, readRegister, writeBytes } from "@vmpl-lab/vmpl"

/** The built-in profile. */
export const profile: Profile = (() => {
  const name = "epyc-9654p.json"
  const parsed = parseProfile(name, readFileSync(new URL(`../../profiles/${name}`, import.meta.url), "utf8"))
  if (parsed._tag === "Failure") throw parsed.failure
  return parsed.success
})()

/** Where a caller-supplied guest program finds itself, and what it can leave behind. */
export interface Guest {
  readonly machine: Machine
  readonly ring: Ring
  readonly secretsGpa: number
  readonly cpuidGpa: number
  readonly firstCaGpa: number
  readonly svsm: { readonly gpa: number; readonly size: number }
  readonly ramSize: number
  /** GPA of one of the BLOCK pages of a vCPU. */
  readonly page: (offset: number, apicId?: number) => number
}

/** What a run came to. */
export interface GuestOutcome {
  readonly machine: Machine
  readonly guest: Guest
  /** Why the machine stopped early, or null. */
  readonly failure: string | null
  /** APIC IDs whose program has returned, in that order. */
  readonly finished: ReadonlyArray<number>
}

export interface GuestRunOptions {
  readonly strategy: Strategy
  /** Program of the boot processor at VMPL2, from the reset vector on. */
  readonly boot: (guest: Guest) => Program
  /** Program at the trampoline page where APs start, whose VMSAs hold the APIC ID in RDI; none by default. */
  readonly ap?: (guest: Guest, apicId: number) => Program
  readonly vcpus?: number
  readonly seed?: number
  readonly ring?: Ring
  readonly cores?: number
  readonly placement?: "spread" | "same-core"
  readonly profile?: Profile
  /** What the SVSM and its guest are launched with beyond the plain case. */
  readonly launch?: Parameters<typeof svsmLaunch>[2]
  /** Virtual time at which to stop a guest that does not end; it boots at about 50 ms. */
  readonly untilNs?: number
  /** Before the first event. */
  readonly prepare?: (machine: Machine) => void
  /** Looked at between any two events. */
  readonly observe?: (machine: Machine) => void
}

/** Far later than any test's guest needs: one that runs until then hangs. */
const UNTIL_NS = 300_000_000

/** Thrown, at most once, to end a run. */
class Hang {
  message: string | null = null
}

/** Boots a whole machine, SVSM and all, with another guest than the default one at VMPL2. */
export const runGuestProgram = (options: GuestRunOptions): GuestOutcome => {
  const { strategy, vcpus = 1, seed = 1, ring = "page", cores = 96, placement = "spread" } = options
  const scenario = new Scenario({ ...DEFAULT_SCENARIO, vcpus, ring, boots: 1, host: { cores, placement } })
  const svsm = svsmLaunch(parseFirmware(syntheticFirmware(), "built-in firmware"), vcpus, options.launch)
  const machine = new Machine({
    strategy,
    scenario,
    profile: options.profile ?? profile,
    seed,
    calls: false,
    svsm
  })
  const { parameters, heapGpa } = svsm
  const guest: Guest = {
    machine,
    ring,
    secretsGpa: parameters.secretsGpa,
    cpuidGpa: parameters.cpuidGpa,
    firstCaGpa: parameters.callingAreaGpa,
    svsm: parameters.svsm,
    ramSize: parameters.ramSize,
    page: (offset, apicId = 0) => blockOf({ heapGpa }, apicId) + offset
  }
  const finished: Array<number> = []
  const { ap } = options
  machine.hardware.programs.install(parameters.resetVector, function* () {
    yield* options.boot(guest)
    finished.push(0)
  })
  machine.hardware.programs.install(AP_TRAMPOLINE_GPA, function* () {
    const apicId = (yield readRegister(VMSA.rdi)).lo
    if (ap !== undefined) yield* ap(guest, apicId)
    finished.push(apicId)
  })
  const hang = limit(machine, options.untilNs ?? UNTIL_NS)
  options.prepare?.(machine)
  const chunk = options.observe === undefined ? 1_000 : 1
  try {
    while (machine.stepMany(chunk)) options.observe?.(machine)
  } catch (thrown) {
    if (thrown !== hang) throw thrown
  }
  return { machine, guest, failure: machine.vmm.failure ?? hang.message, finished }
}

/** Ends a run by throwing when a thread's clock passes a time: one thread alone would never come back from its event. */
const limit = ({ host }: Machine, untilNs: number): Hang => {
  const hang = new Hang()
  const ahead = host.ahead.bind(host)
  host.ahead = (thread) => {
    if (thread.time <= untilNs) return ahead(thread)
    hang.message = `${thread.name} still runs at ${untilNs} ns`
    throw hang
  }
  return hang
}

/** Validates pages of the guest through the SVSM, over the MSR and the first calling area. */
export function* accept(guest: Guest, gpas: ReadonlyArray<number>): Program {
  const early = new SvsmCaller(guest.firstCaGpa, "msr", null)
  const listGpa = guest.firstCaGpa + CALLING_AREA.SIZE
  const capacity = pvalidateCapacity(CALLING_AREA.SIZE)
  for (let i = 0; i < gpas.length; i += capacity) {
    const entries = gpas.slice(i, i + capacity).map((gpa) => ({ gpa, validate: true }))
    yield writeBytes(listGpa, pvalidateList(entries))
    const result = yield* early.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: listGpa })
    if (result !== SVSM_RESULT.SUCCESS) throw new Error(`the SVSM answers 0x${result.toString(16)} to PVALIDATE`)
  }
}

/** What a guest program works with once it is set up. */
export interface Client {
  readonly ghcb: Ghcb
  readonly svsm: SvsmCaller
}

/** The usual start of a program on the boot processor: #VC handler, own pages of all vCPUs validated, GHCB. */
export function* setUp(guest: Guest): Program<Client> {
  yield lidt(vcHandler)
  const vcpus = guest.machine.vmm.groups.map(({ apicId }) => apicId)
  const own = [BLOCK.VMSA, BLOCK.CALLING_AREA, BLOCK.OTHER_CALLING_AREA, BLOCK.LIST]
  yield* accept(guest, [AP_TRAMPOLINE_GPA, ...vcpus.flatMap((id) => own.map((offset) => guest.page(offset, id)))])
  const ghcb = new Ghcb(guest.page(BLOCK.GHCB))
  yield* ghcb.setUp()
  return { ghcb, svsm: new SvsmCaller(guest.firstCaGpa, guest.ring, ghcb) }
}

/** The usual start of a program on an AP whose VMSA put its APIC ID into RDI. */
export function* setUpAp(guest: Guest, apicId: number): Program<Client> {
  yield lidt(vcHandler)
  const ghcb = new Ghcb(guest.page(BLOCK.GHCB, apicId))
  yield* ghcb.setUp()
  return { ghcb, svsm: new SvsmCaller(guest.page(BLOCK.CALLING_AREA, apicId), guest.ring, ghcb) }
}

/** Builds an AP's VMSA, has the SVSM make it one, and asks the host to run it. @returns SVSM result, host's answer */
export function* startAp(
  guest: Guest,
  { ghcb, svsm }: Client,
  apicId: number,
  vmpl = GUEST_VMPL
): Program<[number, boolean]> {
  const vmsaGpa = guest.page(BLOCK.VMSA, apicId)
  const { lo: sevFeatures } = yield readRegister(VMSA.sev_features)
  yield writeBytes(vmsaGpa, apVmsa({ vmpl, sevFeatures, codeBase: AP_TRAMPOLINE_GPA, rip: 0, argument: apicId }))
  const arguments_ = { rcx: vmsaGpa, rdx: guest.page(BLOCK.CALLING_AREA, apicId), r8: apicId }
  const created = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.CREATE_VCPU, arguments_)
  return [created, yield* ghcb.apCreation(AP_CREATION.CREATE, vmpl, apicId, vmsaGpa, sevFeatures)]
}

/** The same under the first strategy, for what no strategy changes. */
export const bootMachine = (boot: (guest: Guest) => Program, options: Partial<GuestRunOptions> = {}): GuestOutcome =>
  runGuestProgram({ strategy: STRATEGIES[0]!, ...options, boot })
