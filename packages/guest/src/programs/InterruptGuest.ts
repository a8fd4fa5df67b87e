import { SEV_FEATURES, TERMINATE, VMSA } from "@vmpl-lab/sev-es"
import {
  cli,
  lidt,
  type Operation,
  type Program,
  pause,
  portOut,
  read,
  readRegister,
  sti,
  write,
  writeBytes,
  wrmsr
} from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
import { guestIdt } from "../GuestIdt.ts"
import { setDoorbell } from "../ghcb/Interrupts.ts"
import { keepingGhcbMsr, makeShared, terminate } from "../MsrProtocol.ts"
import { pvalidateList } from "../PvalidateList.ts"
import {
  APIC_CALL,
  APIC_CONFIGURE,
  APIC_VECTOR,
  CALLING_AREA,
  CORE_CALL,
  PROTOCOL,
  SVSM_RESULT,
  SvsmCaller
} from "../SvsmCall.ts"
import { SPIV_ENABLED, sendIpi, startApicTimer, stopApicTimer, X2APIC } from "../X2apic.ts"
import { enableX2apic } from "./BareBoot.ts"
import { acceptAndCall, type BodyPlan, bringUpLevels } from "./GuestBody.ts"
import { AP_TRAMPOLINE_GPA, BLOCK, blockOf, type GuestBody, type GuestPlan } from "./GuestPlan.ts"
import { type Hands, withoutInterrupts } from "./Hands.ts"
import { now } from "./Pace.ts"
import { CORE_VERSION_1 } from "./Workload.ts"

/** A source that the guest itself drives. */
export interface GuestSource {
  readonly vector: number
  readonly periodNs: number
}

/** What a guest that takes interrupts does between them. */
export interface InterruptGuestPlan {
  /** Port of the device: written with an APIC ID, that vCPU's interrupts begin. */
  readonly devicePort: number
  readonly timer: GuestSource | null
  /** Each vCPU sends to the next one. */
  readonly ipi: GuestSource | null
  /** Time in SVSM calls, per mille of all time. */
  readonly svsmShare: number
  /** Pages that one SVSM call validates and rescinds: what makes it long. */
  readonly pagesPerCall: number
  /** How long sources run, and how long the guest goes on after that to take what is under way. */
  readonly durationNs: number
  readonly drainNs: number
  /** When the guest gives up the APIC that the SVSM emulates, ns after the sources began; null: never. */
  readonly leavesApicAtNs: number | null
  /** What each vCPU does first while sources run, however long that takes; only work and calls when left out. */
  readonly first?: BodyPlan | undefined
}

/** Pages of the block that the boot code leaves free. The first may be 2 MiB aligned, which a shared page may. */
const PAGE = { DOORBELL: 0x0, BACKUP: 0x7000 } as const

/** PAUSEs between two looks at the clock. */
const LOOK_EVERY = 20

/** One vCPU at VMPL2 that takes interrupts while it works and calls the SVSM in turn. */
export const interruptGuest =
  (plan: InterruptGuestPlan): GuestBody =>
  (guest, apicId, caGpa) =>
    body(plan, guest, apicId, caGpa)

function* body(plan: InterruptGuestPlan, guest: GuestPlan, apicId: number, caGpa: number): Program {
  const block = blockOf(guest, apicId)
  const ghcb = new Ghcb(block + BLOCK.GHCB, { backup: block + PAGE.BACKUP })
  const svsm = new SvsmCaller(caGpa, guest.ring, ghcb)
  yield* ghcb.use()
  yield* bringUpLevels(guest, apicId, svsm)
  yield* need(svsm, block, [{ gpa: block + PAGE.BACKUP, validate: true }])
  const { lo: features } = yield readRegister(VMSA.sev_features)
  const isAlternate = (features & SEV_FEATURES.AlternateInjection) !== 0
  const isRestricted = (features & SEV_FEATURES.RestrictedInjection) !== 0
  const apic = { isEmulated: isAlternate }
  if (isRestricted) yield* installDoorbell(ghcb, block + PAGE.DOORBELL)
  yield lidt(
    guestIdt({
      vc: { ghcb, svsm },
      onInterrupt: () => (apic.isEmulated ? endThroughSvsm(svsm) : endAtApic()),
      ...(isRestricted ? { hv: { doorbell: block + PAGE.DOORBELL, onMachineCheck: stop } } : {})
    })
  )
  yield* enableX2apic(apicId)
  yield wrmsr(X2APIC.SPIV, SPIV_ENABLED)
  if (isAlternate) yield* useApicProtocol(svsm)
  guest.report.ready(apicId)
  yield* reach(apicId, STAGE.READY)
  while (!(yield* allReached(guest, STAGE.READY))) yield pause(LOOK_EVERY)
  yield* workAndCall(plan, guest, apicId, { svsm, ghcb, guard: withoutInterrupts }, apic)
  guest.report.done(apicId)
}

/** How far a vCPU is: none is sent an interrupt before it is there, or after. */
const STAGE = { READY: 1, LEFT: 2, QUIET: 3 } as const

/** A byte for each vCPU behind the code at which APs start, in a page that all of them can reach. */
const STAGES_GPA = AP_TRAMPOLINE_GPA + 0x800

function* reach(apicId: number, stage: number): Program {
  yield write(STAGES_GPA + apicId, 1, stage)
}

function* allReached(guest: GuestPlan, stage: number): Program<boolean> {
  for (let apicId = 0; apicId < guest.vcpus; apicId++) {
    if ((yield read(STAGES_GPA + apicId, 1)).lo < stage) return false
  }
  return true
}

function* stop(): Program {
  yield* terminate(TERMINATE.GENERAL)
}

function* installDoorbell(ghcb: Ghcb, gpa: number): Program {
  const shared = yield* keepingGhcbMsr(makeShared(gpa))
  if (!shared || !(yield* setDoorbell(ghcb, gpa)).ok) yield* stop()
}

function* endAtApic(): Program {
  yield wrmsr(X2APIC.EOI, 0)
}

/** The SVSM says in the calling area when it needs no EOI: then the guest takes the word away instead of calling. */
function* endThroughSvsm(svsm: SvsmCaller): Program {
  const lazy = svsm.caGpa + CALLING_AREA.no_eoi_required
  if ((yield read(lazy, 1)).lo !== 0) yield write(lazy, 1, 0)
  else yield* ok(svsm.call(PROTOCOL.APIC, APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.EOI }))
}

/** The SVSM has the APIC: registers, and every vector may pass. */
function* useApicProtocol(svsm: SvsmCaller): Program {
  yield* ok(svsm.call(PROTOCOL.APIC, APIC_CALL.QUERY_FEATURES, {}))
  yield* ok(svsm.call(PROTOCOL.APIC, APIC_CALL.CONFIGURE, { rcx: APIC_CONFIGURE.REGISTER }))
  yield* ok(svsm.call(PROTOCOL.APIC, APIC_CALL.CONFIGURE_VECTOR, { rcx: APIC_VECTOR.ENABLE | APIC_VECTOR.ALL }))
}

function* ok(call: Program<number>): Program {
  if ((yield* call) !== SVSM_RESULT.SUCCESS) yield* stop()
}

function* need(
  svsm: SvsmCaller,
  block: number,
  entries: ReadonlyArray<{ readonly gpa: number; readonly validate: boolean }>
): Program {
  yield writeBytes(block + BLOCK.LIST, pvalidateList(entries))
  yield* ok(svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: block + BLOCK.LIST }))
}

/** A call of some length: the same page validated and rescinded again and again. Without any it asks for a version. */
function* call({ pagesPerCall }: InterruptGuestPlan, svsm: SvsmCaller, block: number): Program {
  if (pagesPerCall === 0) yield* ok(svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: CORE_VERSION_1 }))
  else {
    const gpa = block + BLOCK.TOGGLED
    const entries = Array.from({ length: 2 * pagesPerCall }, (_, i) => ({ gpa, validate: i % 2 === 0 }))
    yield* need(svsm, block, entries)
  }
}

/**
 * Works and calls by turns, so that calls take their share of the time whatever one takes. Interrupts are off during a
 * call, as Linux has them: a handler that made a call of its own would overwrite the registers of this one.
 */
function* workAndCall(
  plan: InterruptGuestPlan,
  guest: GuestPlan,
  apicId: number,
  hands: Hands,
  apic: ApicInUse
): Program {
  const { svsm } = hands
  const block = blockOf(guest, apicId)
  const begin = yield* now()
  const end = begin + plan.durationNs
  if (plan.timer !== null) yield* startApicTimer(plan.timer.vector, plan.timer.periodNs)
  yield startDevice(plan.devicePort, apicId)
  yield sti()
  const sendDueIpi = ipiSender(plan, (apicId + 1) % guest.vcpus, begin)
  if (plan.first !== undefined) yield* doFirst(plan.first, guest, apicId, hands, sendDueIpi)
  const leaveApic = apicLeaver(plan, guest, apicId, hands, apic, begin)
  while ((yield* now()) < end) {
    yield* sendDueIpi()
    yield* leaveApic()
    yield* work(plan, svsm, block)
  }
  if (plan.timer !== null) yield* stopApicTimer()
  yield* reach(apicId, STAGE.QUIET)
  while (!(yield* allReached(guest, STAGE.QUIET))) yield* work(plan, svsm, block)
  const quiet = yield* now()
  while ((yield* now()) < quiet + plan.drainNs) yield* work(plan, svsm, block)
  yield cli()
}

/** Who has a vCPU's APIC: the SVSM, or the host. */
interface ApicInUse {
  isEmulated: boolean
}

/**
 * Gives up the emulated APIC when it is time. Each vCPU takes itself off the count, the boot processor the boot code
 * too, and once all have, each has its own emulation ended. The SVSM keeps it where the host does not take over.
 */
const apicLeaver = (
  { leavesApicAtNs }: InterruptGuestPlan,
  guest: GuestPlan,
  apicId: number,
  { svsm }: Hands,
  apic: ApicInUse,
  begin: number
): (() => Program) => {
  if (leavesApicAtNs === null || !apic.isEmulated) return function* () {}
  const { DEREGISTER, QUERY } = APIC_CONFIGURE
  // No interrupt comes between the end of the emulation and the other way to end one.
  const configure = (...requests: ReadonlyArray<number>): Program => withoutInterrupts(leave(svsm, apic, requests))
  let left = false
  let asked = false
  return function* () {
    if (!left && (yield* now()) >= begin + leavesApicAtNs) {
      left = true
      yield* apicId === 0 ? configure(DEREGISTER, DEREGISTER) : configure(DEREGISTER)
      yield* reach(apicId, STAGE.LEFT)
    }
    if (!left || asked || !(yield* allReached(guest, STAGE.LEFT))) return
    asked = true
    if (apic.isEmulated) yield* configure(QUERY)
  }
}

function* leave(svsm: SvsmCaller, apic: ApicInUse, requests: ReadonlyArray<number>): Program {
  for (const rcx of requests) {
    const result = yield* svsm.call(PROTOCOL.APIC, APIC_CALL.CONFIGURE, { rcx })
    if (result !== SVSM_RESULT.SUCCESS && result !== SVSM_RESULT.INVALID_REQUEST) yield* stop()
  }
  apic.isEmulated = (yield* svsm.call(PROTOCOL.APIC, APIC_CALL.QUERY_FEATURES, {})) === SVSM_RESULT.SUCCESS
}

/** Sends the IPI that is due, if one is. */
const ipiSender = ({ ipi }: InterruptGuestPlan, to: number, begin: number): (() => Program) => {
  if (ipi === null) return function* () {}
  let next = begin + ipi.periodNs
  return function* () {
    if ((yield* now()) < next) return
    yield* sendIpi(to, ipi.vector)
    next += ipi.periodNs
  }
}

/** What comes first, with an IPI between two requests where one is due. The page for calls is left as it was found. */
function* doFirst(first: BodyPlan, guest: GuestPlan, apicId: number, hands: Hands, sendDueIpi: () => Program): Program {
  const guard: Hands["guard"] = function* (request) {
    const result = yield* hands.guard(request)
    yield* sendDueIpi()
    return result
  }
  const validated = yield* acceptAndCall(first, guest, apicId, { ...hands, guard })
  const block = blockOf(guest, apicId)
  if (validated) yield* hands.guard(need(hands.svsm, block, [{ gpa: block + BLOCK.TOGGLED, validate: false }]))
}

const startDevice = (port: number, apicId: number): Operation => portOut(port, 4, apicId)

/** One call and its share of work; all work where no time is for calls. */
function* work(plan: InterruptGuestPlan, svsm: SvsmCaller, block: number): Program {
  const { svsmShare } = plan
  if (svsmShare === 0) {
    yield pause(LOOK_EVERY)
    return
  }
  const begin = yield* now()
  yield* withoutInterrupts(call(plan, svsm, block))
  const called = yield* now()
  const until = called + Math.floor(((called - begin) * (1_000 - svsmShare)) / svsmShare)
  while ((yield* now()) < until) yield pause(LOOK_EVERY)
}
