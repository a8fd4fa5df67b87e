import { apicIdListPages, HV_FEATURE, MSR, PSC_OP, type PscEntry, REASON, type U64, u64, VMSA } from "@vmpl-lab/sev-es"
import {
  cpuid,
  GuestException,
  hlt,
  invd,
  lidt,
  monitor,
  mwait,
  type Operation,
  type Program,
  pause,
  portIn,
  portIns,
  portOut,
  portOuts,
  pvalidate,
  rdmsr,
  rdpmc,
  rdtsc,
  rdtscp,
  readBytes,
  readDr,
  readRegister,
  readShared,
  rmpadjust,
  sti,
  vmmcall,
  wbinvd,
  writeBytes,
  writeDr,
  writeRegister,
  writeShared,
  wrmsr
} from "@vmpl-lab/vmpl"
import { apVmsa } from "../ApVmsa.ts"
import type { Ghcb } from "../Ghcb.ts"
import { guestIdt } from "../GuestIdt.ts"
import { hypervisorFeatures, requestVmpl } from "../ghcb/Control.ts"
import type { Outcome } from "../ghcb/Exchange.ts"
import { extendedGuestRequest, guestRequest } from "../ghcb/GuestRequest.ts"
import { ghcbCpuid } from "../ghcb/Instructions.ts"
import * as Interrupts from "../ghcb/Interrupts.ts"
import { pageStateChanges } from "../ghcb/PageStateChanges.ts"
import * as Processors from "../ghcb/Processors.ts"
import { initSipi, MSR_X2APIC_ICR } from "../InitSipi.ts"
import {
  apResetHoldMsr,
  cpuidRegister,
  hvFeaturesMsr,
  keepingGhcbMsr,
  makeShared,
  preferredGhcb,
  runVmplMsr,
  sevInfo
} from "../MsrProtocol.ts"
import { acceptPages, bareSetUp, cpuidPageOf, enableX2apic } from "./BareBoot.ts"
import { BARE_BLOCK, type BarePlan, blockPage, commonPage } from "./BarePlan.ts"

/** The machine on which every event is tried, and who hears of the answers. */
export interface EveryEventPlan extends BarePlan {
  /** GPA of an edu device whose interrupt is pin 10 of the I/O APIC. */
  readonly edu: number
  /** GPA of one that sends an MSI with vector EDU_MSI_VECTOR. */
  readonly eduMsi: number
  /** Hypervisor features that the host should offer. */
  readonly hvFeatures: number
  /** An event or MSR request, as the table of events calls it, was answered as it should be, or was not. */
  readonly checked: (event: string, ok: boolean) => void
}

export const EDU_PIN = 10
export const EDU_MSI_VECTOR = 0x62
const EDU_VECTOR = 0x61
const IPI_VECTOR = 0x41
const TIMER_VECTOR = 0x51

const COM1 = 0x3f8
const COM1_LSR = COM1 + 5
const LSR_EMPTY = 0x60
const EDU_ID = 0x0100_00ed
const EDU = { LIVENESS: 0x04, IRQ_STATUS: 0x24, IRQ_RAISE: 0x60, IRQ_ACK: 0x64 } as const
const IOAPIC = { BASE: 0xfec0_0000, WINDOW: 0xfec0_0010, REDIRECTION: 0x10, LEVEL: 0x8000 } as const
const X2APIC = { EOI: 0x80b, SPIV: 0x80f, LVTT: 0x832, TMICT: 0x838, TDCR: 0x83e } as const
const APIC_ENABLED_SPURIOUS = 0x1ff
const ICR_NMI_SELF = 0x4_4400
const ENOSYS_LO = (-1000 >>> 0) as number

/** Pages beyond the usual ones. */
const SPARE = { SHARED: 0x5000, RESPONSE: 0x6000, PRIVATE: 0x7000 } as const
const COMMON_PSC = 0x4000

const isU64 = ({ lo, hi }: U64, value: number): boolean => hi * 2 ** 32 + lo === value

/** The operation is refused with #GP. */
function* isGp(operation: Operation): Program<boolean> {
  try {
    yield operation
    return false
  } catch (exception) {
    return exception instanceof GuestException && exception.vector === "#GP"
  }
}

const isRefused = <T>(outcome: Outcome<T>, reason: number): boolean => !outcome.ok && outcome.reason === reason

/** Boot processor: every event of the page and every request of the MSR once, each answer looked at. */
export function* everyEventBoot(plan: EveryEventPlan): Program {
  const check = (event: string, ok: boolean): void => plan.checked(event, ok)
  const { ghcb } = yield* bareSetUp(plan)
  const own = (offset: number): number => blockPage(plan, 0, offset)
  yield* acceptPages(plan, [own(SPARE.PRIVATE), own(BARE_BLOCK.VMSA)])
  for (const page of [own(SPARE.SHARED), own(SPARE.RESPONSE)])
    check("msr 0x014", yield* keepingGhcbMsr(makeShared(page)))

  const seen = { vectors: new Map<number, number>(), nmis: 0 }
  yield lidt(
    guestIdt({
      vc: { ghcb, asksForDr7: true, ...cpuidPageOf(plan) },
      stack: own(BARE_BLOCK.STACK) + 0x1000,
      onNmi: function* () {
        seen.nmis++
        yield pause()
      },
      onInterrupt: function* (vector) {
        seen.vectors.set(vector, (seen.vectors.get(vector) ?? 0) + 1)
        if (vector === EDU_VECTOR) yield writeShared(plan.edu + EDU.IRQ_ACK, 4, 1)
        if (vector === EDU_MSI_VECTOR) yield writeShared(plan.eduMsi + EDU.IRQ_ACK, 4, 1)
        yield wrmsr(X2APIC.EOI, 0)
      }
    })
  )
  yield* msrRequests(plan, check)
  yield* instructions(ghcb, own(SPARE.PRIVATE), check)
  yield* devices(plan, check)
  yield* enableX2apic(0)
  yield wrmsr(X2APIC.SPIV, APIC_ENABLED_SPURIOUS)
  yield* interrupts(plan, ghcb, seen, check)
  yield* pages(plan, ghcb, own, check)
  yield* processors(plan, ghcb, own(BARE_BLOCK.VMSA), check)
  yield* proposals(ghcb, check)
}

type Check = (event: string, ok: boolean) => void

/** Requests over the MSR; the GHCB's address is put back. */
function* msrRequests(plan: EveryEventPlan, check: Check): Program {
  const one = <T>(request: Program<T>): Program<T> => keepingGhcbMsr(request)
  const { min, max, cbit } = yield* one(sevInfo())
  check("msr 0x002", min === 1 && max === 2 && cbit === 51)
  check("msr 0x004", ((yield* one(cpuidRegister(0x8000_001f, 0))) & 0x10) !== 0)
  check("msr 0x010", (yield* one(preferredGhcb())) === null)
  check("msr 0x012", true)
  check("msr 0x000", true)
  check("msr 0x080", isU64(yield* one(hvFeaturesMsr(2)), plan.hvFeatures))
  check("msr 0x016", (yield* one(runVmplMsr(3))) !== 0)
}

function* instructions(ghcb: Ghcb, buffer: number, check: Check): Program {
  const sev = (yield cpuid(0x8000_001f)).lo
  const asked = yield* ghcbCpuid(ghcb, 0x8000_001f, 0, u64(1))
  check("0x72", (sev & 0x10) !== 0 && asked.ok && asked.value.eax === sev)
  const first = (yield rdmsr(MSR.TSC)).lo
  check(
    "0x7c",
    (yield rdmsr(MSR.TSC)).lo > first && (yield* isGp(rdmsr(0xc001_0015))) && (yield* isGp(wrmsr(MSR.TSC, 0)))
  )
  const before = (yield rdtsc()).lo
  check("0x6e", (yield rdtsc()).lo > before)
  check("0x87", (yield rdtscp()).lo > before)
  check("0x6f", yield* isGp(rdpmc(0)))
  yield invd()
  check("0x76", true)
  yield wbinvd()
  check("0x89", true)
  yield monitor(buffer)
  check("0x8a", true)
  yield mwait()
  check("0x8b", true)
  yield writeRegister(VMSA.rax, 77)
  yield vmmcall()
  const { lo: rax, hi: raxHi } = yield readRegister(VMSA.rax)
  check("0x81", rax === ENOSYS_LO && raxHi === 0xffff_ffff)
  yield writeDr(7, 0x401)
  check("0x37", true)
  check("0x27", (yield readDr(7)).lo === 0x401)

  yield portOut(COM1, 1, 0x41)
  const empty = (yield portIn(COM1_LSR, 1)).lo === LSR_EMPTY
  yield writeBytes(buffer, new TextEncoder().encode("hello"))
  yield portOuts(COM1, 1, buffer, 5)
  yield portIns(COM1_LSR, 1, buffer + 0x100, 3)
  const status = new Uint8Array(3)
  yield readBytes(buffer + 0x100, status)
  check("0x7b", empty && status.every((byte) => byte === LSR_EMPTY))
}

function* devices({ edu }: EveryEventPlan, check: Check): Program {
  check("0x80000001", (yield readShared(edu, 4)).lo === EDU_ID)
  yield writeShared(edu + EDU.LIVENESS, 4, 0x1234_5678)
  check("0x80000002", (yield readShared(edu + EDU.LIVENESS, 4)).lo === 0xedcb_a987)
}

/** Sleeps until something that the handlers tell of has happened; the last look and HLT leave no gap. */
function* until(done: () => boolean): Program {
  for (let waits = 0; !done() && waits < 100; waits++) {
    yield sti()
    yield hlt()
  }
}

interface Seen {
  readonly vectors: Map<number, number>
  nmis: number
}

function* interrupts(plan: EveryEventPlan, ghcb: Ghcb, seen: Seen, check: Check): Program {
  const arrived = (vector: number): boolean => (seen.vectors.get(vector) ?? 0) === 1
  check("0x80000015", (yield* Interrupts.hvIpi(ghcb, u64(0x4_4000 | IPI_VECTOR))).ok)
  yield* until(() => arrived(IPI_VECTOR))
  check("0x80000015", arrived(IPI_VECTOR))
  yield wrmsr(X2APIC.TDCR, 0xb)
  yield wrmsr(X2APIC.LVTT, TIMER_VECTOR)
  yield wrmsr(X2APIC.TMICT, 100_000)
  yield* until(() => arrived(TIMER_VECTOR))
  check("0x7c", arrived(TIMER_VECTOR))
  yield* redirect(IOAPIC.REDIRECTION + 2 * EDU_PIN, EDU_VECTOR | IOAPIC.LEVEL)
  for (const [device, vector] of [
    [plan.edu, EDU_VECTOR],
    [plan.eduMsi, EDU_MSI_VECTOR]
  ] as const) {
    yield writeShared(device + EDU.IRQ_RAISE, 4, 1)
    yield* until(() => arrived(vector))
    check("0x80000002", arrived(vector) && (yield readShared(device + EDU.IRQ_STATUS, 4)).lo === 0)
  }
  // The second NMI comes only because the handler of the first has said that it is complete.
  for (const nmis of [1, 2]) {
    yield wrmsr(MSR_X2APIC_ICR, ICR_NMI_SELF)
    yield* until(() => seen.nmis >= nmis)
    check("0x80000003", seen.nmis === nmis)
  }
}

/** One entry of the I/O APIC's redirection table: physical destination 0. */
function* redirect(register: number, low: number): Program {
  yield writeShared(IOAPIC.BASE, 4, register + 1)
  yield writeShared(IOAPIC.WINDOW, 4, 0)
  yield writeShared(IOAPIC.BASE, 4, register)
  yield writeShared(IOAPIC.WINDOW, 4, low)
}

function* pages(plan: EveryEventPlan, ghcb: Ghcb, own: (offset: number) => number, check: Check): Program {
  const gfn = commonPage(plan, COMMON_PSC) / 0x1000
  const entries = (operation: number): ReadonlyArray<PscEntry> =>
    [0, 1, 2].map((i) => ({ gfn: gfn + i, operation, is2m: false, curPage: 0 }))
  const shared = yield* pageStateChanges(ghcb, entries(PSC_OP.SHARED))
  yield writeShared(gfn * 0x1000, 4, 0x77)
  const kept = (yield readShared(gfn * 0x1000, 4)).lo === 0x77
  const back = yield* pageStateChanges(ghcb, entries(PSC_OP.PRIVATE))
  const validated = yield pvalidate(gfn * 0x1000, true)
  check("0x80000010", shared.ok && kept && back.ok && validated.lo === 0 && !validated.carry)
  const outside = yield* pageStateChanges(ghcb, [{ gfn: 2 ** 36, operation: PSC_OP.SHARED, is2m: false, curPage: 0 }])
  check("0x80000010", !outside.ok)

  const area = { request: own(SPARE.SHARED), response: own(SPARE.RESPONSE) }
  const message = yield* guestRequest(ghcb, area)
  // A page of zeros is no message: the firmware says so, not the hypervisor.
  check("0x80000011", message.ok && message.value.vmmError === 0 && message.value.firmware !== 0)
  const none = yield* extendedGuestRequest(ghcb, area, { gpa: own(SPARE.SHARED), pages: 0 })
  check("0x80000012", none.ok && none.value.vmmError === 1 && none.value.pagesNeeded === 1)
}

function* processors(plan: EveryEventPlan, ghcb: Ghcb, vmsa: number, check: Check): Program {
  const size = yield* Processors.apicIdListSize(ghcb)
  const list = yield* Processors.apicIdList(ghcb, blockPage(plan, 0, SPARE.SHARED), 1)
  const ids = Array.from({ length: plan.vcpus }, (_, id) => id)
  const known = list.ok && list.value !== null && list.value.join() === ids.join()
  check("0x80000017", size.ok && size.value === apicIdListPages(plan.vcpus) && known)

  const table = commonPage(plan, 0x3000)
  const set = yield* Processors.setApJumpTable(ghcb, table)
  const got = yield* Processors.getApJumpTable(ghcb)
  check("0x80000005", set.ok && got.ok && got.value === table)

  const { lo, hi } = yield readRegister(VMSA.sev_features)
  yield writeBytes(vmsa, apVmsa({ vmpl: 1, sevFeatures: lo, codeBase: 0, rip: 0, argument: 0 }))
  yield rmpadjust(vmsa, 1, 0, true)
  const target = { vmpl: 1, apicId: 0 }
  const noted = yield* Processors.createApOnInit(ghcb, target, vmsa, { lo, hi })
  const destroyed = yield* Processors.destroyAp(ghcb, target)
  const stranger = yield* Processors.createAp(ghcb, { vmpl: 1, apicId: 99 }, vmsa, { lo, hi })
  check("0x80000013", noted.ok && destroyed.ok && isRefused(stranger, REASON.INVALID_INPUT))
  check("0x80000018", (yield* requestVmpl(ghcb, 0)).ok && !(yield* requestVmpl(ghcb, 3)).ok)
  const features = yield* hypervisorFeatures(ghcb)
  check("0x8000fffd", features.ok && isU64(features.value, plan.hvFeatures))

  // The other vCPU holds twice, by the event and by the MSR request; the third SIPI lets it end.
  for (let sipi = 0; sipi < 3; sipi++) {
    yield* initSipi(1, 0)
    yield* settle()
  }
}

/** Time for another vCPU to come to its hold. */
function* settle(): Program {
  const begin = (yield rdtsc()).lo
  while ((yield rdtsc()).lo - begin < 2_000_000) yield cpuid(0)
}

function* proposals(ghcb: Ghcb, check: Check): Program {
  const backing = 0x10_0000
  const registered = yield* Interrupts.registerSecureAvic(ghcb, backing)
  const before = yield* Interrupts.unregisterSecureAvic(ghcb)
  check("0x8000001a", registered.ok && before.ok && before.value === backing)
  const doorbell = yield* Interrupts.preferredDoorbell(ghcb)
  const gpa = ghcb.gpa
  const set = yield* Interrupts.setDoorbell(ghcb, gpa)
  const asked = yield* Interrupts.queryDoorbell(ghcb)
  const cleared = yield* Interrupts.clearDoorbell(ghcb)
  const gone = yield* Interrupts.queryDoorbell(ghcb)
  const answers = [doorbell, gone].every((one) => one.ok && one.value === null)
  check("0x80000014", answers && set.ok && asked.ok && asked.value === gpa && cleared.ok)
  const unknown: ReadonlyArray<readonly [string, Program<Outcome<unknown>>]> = [
    ["0x8000001b", Interrupts.configureInterruptInjection(ghcb, 0x40)],
    ["0x8000001d", Interrupts.specificEoi(ghcb, 1, 0x40)]
  ]
  for (const [event, answer] of unknown) check(event, isRefused(yield* answer, REASON.INVALID_EVENT))
  // No level below has its interrupts injected, hence nothing is handed over.
  const state = { vmpl: 1, tpr: 0, shadow: false, interruptsEnabled: true }
  check("0x8000001c", isRefused(yield* Interrupts.disableAlternateInjection(ghcb, state), REASON.INVALID_INPUT))
}

/** Application processor: holds until a SIPI, first by the event, then by the MSR request. */
export function* everyEventAp(plan: EveryEventPlan): Program {
  const { ghcb } = yield* bareSetUp(plan)
  plan.checked("0x80000004", (yield* Processors.apResetHold(ghcb)).ok)
  yield* keepingGhcbMsr(apResetHoldMsr())
  plan.checked("msr 0x006", true)
}

/** Features of a host that offers all that is served. */
export const EVERY_FEATURE = Object.values(HV_FEATURE).reduce((all, bit) => all | bit, 0)
