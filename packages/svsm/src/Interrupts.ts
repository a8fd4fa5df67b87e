import {
  enableX2apic,
  Ghcb,
  GUEST_VMPL,
  guestIdt,
  keepingGhcbMsr,
  makeHvHandler,
  makeShared,
  runVmplMsr,
  SPIV_ENABLED,
  sendIpi,
  setDoorbell,
  startApicTimer,
  terminate,
  UNEXPECTED_RESPONSE,
  X2APIC
} from "@vmpl-lab/guest"
import { DOORBELL, DOORBELL_FLAG, GHCB_MSR, MSR_GHCB, SEV_FEATURES, TERMINATE, VMSA } from "@vmpl-lab/sev-es"
import { lidt, type Program, rdmsr, readRegister, readShared, sti, vmgexit, wrmsr } from "@vmpl-lab/vmpl"
import { handOver } from "./ApicHandOver.ts"
import { takeEventsBelow } from "./EventsBelow.ts"
import { GuestApic } from "./GuestApic.ts"
import { GuestInjection } from "./GuestInjection.ts"
import { svsmBackupGpa, svsmDoorbellGpa, svsmGhcbGpa } from "./Image.ts"
import { validateOwn } from "./OwnPages.ts"
import type { SvsmInterrupts } from "./Parameters.ts"
import type { GuestVmsa, SvsmState } from "./State.ts"

/** What one CPU of the SVSM does about interrupts: its own, and under alternate injection the guest's. */
export class CpuInterrupts {
  readonly ghcb: Ghcb
  /** The guest's APIC as the SVSM emulates it, null where the guest has the host's. */
  guestApic: GuestApic | null
  readonly #doorbell: number
  #injection: GuestInjection | null
  /** #HV is put off: the guest is about to be entered. */
  #masked = false
  /** An #HV was put off since. */
  #rang = false
  #active = false
  /** Calls served since the latest IPI. */
  calls = 0

  /** @param doorbell GPA of the doorbell page, -1 where interrupts come as they do on any machine */
  constructor(ghcb: Ghcb, doorbell: number, guestApic: GuestApic | null, lazyEoi = true) {
    this.ghcb = ghcb
    this.guestApic = guestApic
    this.#doorbell = doorbell
    this.#injection = guestApic === null ? null : new GuestInjection(guestApic, lazyEoi)
  }

  /** Loads the handlers. */
  *install(): Program {
    const { ghcb } = this
    const idt = guestIdt({ vc: { ghcb }, onInterrupt: endAtApic })
    yield lidt(this.#doorbell < 0 ? idt : { ...idt, hv: () => this.#onHv() })
  }

  /**
   * Runs the guest's level. With a doorbell: not while something stands in it, and an #HV that comes after that look
   * cancels the entry, so that nothing stays unprocessed while the guest runs. A cancelled entry counts as one that has
   * come back.
   * @returns 0, or the host's error
   */
  *runGuest(served: GuestVmsa): Program<number> {
    if (this.#doorbell < 0) return yield* runVmplMsr(served.vmpl)
    this.#masked = true
    // Other levels of the guest have no APIC here.
    const injection = served.vmpl === GUEST_VMPL ? this.#injection : null
    if (injection !== null) yield* injection.refresh(served)
    const error = yield* this.#enter(served.vmpl)
    if (injection !== null) yield* injection.returned(served)
    this.#masked = false
    if (this.#rang) yield* keepingGhcbMsr(this.#serveDoorbell())
    return error
  }

  /**
   * Runs a level that the host may not know yet, by the page form: a refusal comes back as such under every host.
   * @returns whether it ran
   */
  *tryGuest({ vmpl }: GuestVmsa): Program<boolean> {
    this.#masked = true
    const ran = yield* keepingGhcbMsr(this.#ringByPage(vmpl))
    this.#masked = false
    if (this.#rang) yield* keepingGhcbMsr(this.#serveDoorbell())
    return ran
  }

  /**
   * The emulated APIC is given up: the host has its state from now on, and injects itself.
   * @returns whether the host has taken over; where it has not, everything is as before
   */
  *handOverApic(served: GuestVmsa): Program<boolean> {
    const { guestApic } = this
    const injection = this.#injection
    if (guestApic === null || injection === null) return true
    if (this.#doorbell < 0) {
      // Without a doorbell page nothing of it came from the host, and there is no place to leave any of it.
      this.guestApic = null
      return true
    }
    // An #HV would have the doorbell looked through while the host's part of it is being filled.
    this.#masked = true
    yield* injection.takeBack(served)
    const tookOver = yield* keepingGhcbMsr(handOver(this.ghcb, this.#doorbell, guestApic, served))
    if (tookOver) {
      this.guestApic = null
      this.#injection = null
    }
    this.#masked = false
    if (this.#rang) yield* keepingGhcbMsr(this.#serveDoorbell())
    return tookOver
  }

  *#ringByPage(vmpl: number): Program<boolean> {
    yield* this.ghcb.use()
    return yield* this.ghcb.runVmpl(vmpl)
  }

  *#enter(vmpl: number): Program<number> {
    const flags = (yield readShared(this.#doorbell + DOORBELL.flags, 1)).lo
    if ((flags & DOORBELL_FLAG.NO_FURTHER_SIGNAL) !== 0) this.#rang = true
    yield wrmsr(MSR_GHCB, GHCB_MSR.RUN_VMPL_REQUEST, vmpl)
    // The cancel point: between this look and VMGEXIT there is no instruction.
    if (this.#rang) return 0
    yield vmgexit()
    const { lo, hi } = yield rdmsr(MSR_GHCB)
    return lo === GHCB_MSR.RUN_VMPL_RESPONSE ? hi : UNEXPECTED_RESPONSE
  }

  *#onHv(): Program {
    if (this.#masked || this.#active) this.#rang = true
    else yield* keepingGhcbMsr(this.#serveDoorbell())
  }

  /** Own interrupts, then those of the levels below, until a look finds nothing new. */
  *#serveDoorbell(): Program {
    const own = makeHvHandler({
      doorbell: this.#doorbell,
      onVector: endAtApic,
      onNmi: () => this.ghcb.nmiComplete(),
      onMachineCheck: () => terminate(TERMINATE.GENERAL)
    })
    this.#active = true
    do {
      this.#rang = false
      yield* this.ghcb.use()
      yield* own()
      yield* takeEventsBelow(this.#doorbell, GUEST_VMPL, (vector) => this.guestApic?.post(vector))
    } while (this.#rang)
    this.#active = false
  }
}

function* endAtApic(): Program {
  yield wrmsr(X2APIC.EOI, 0)
}

/** The GHCB by which a CPU of the SVSM speaks with the host, whether it takes interrupts or not. */
export const ghcbOf = ({ interrupts, parameters }: SvsmState, apicId: number): Ghcb =>
  interrupts[apicId]?.ghcb ?? new Ghcb(svsmGhcbGpa(parameters.svsm.gpa, apicId))

/** Sets a CPU up to take interrupts, where the loader says that it does. */
export function* setUpInterrupts(state: SvsmState, base: number, apicId: number): Program {
  const { interrupts, vcpus } = state.parameters
  if (interrupts === undefined || !interrupts.takes) return
  const backup = svsmBackupGpa(base, vcpus, apicId)
  yield* validateOwn(backup)
  const ghcb = new Ghcb(svsmGhcbGpa(base, apicId), { backup })
  yield* ghcb.use()
  const { lo: features } = yield readRegister(VMSA.sev_features)
  const isRestricted = (features & SEV_FEATURES.RestrictedInjection) !== 0
  const doorbell = isRestricted ? svsmDoorbellGpa(base, vcpus, apicId) : -1
  if (isRestricted) {
    const shared = yield* keepingGhcbMsr(makeShared(doorbell))
    if (!shared || !(yield* setDoorbell(ghcb, doorbell)).ok) yield* terminate(TERMINATE.GENERAL)
  }
  const cpu = new CpuInterrupts(
    ghcb,
    doorbell,
    isRestricted ? guestApic(interrupts, apicId) : null,
    state.behaviour.lazyEoi
  )
  state.interrupts[apicId] = cpu
  yield* cpu.install()
  yield* enableX2apic(apicId)
  yield wrmsr(X2APIC.SPIV, SPIV_ENABLED)
  if (interrupts.timerVector !== 0) yield* startApicTimer(interrupts.timerVector, interrupts.timerPeriodNs)
  yield sti()
}

const guestApic = ({ guestFeatures }: SvsmInterrupts, apicId: number): GuestApic | null =>
  (guestFeatures & SEV_FEATURES.AlternateInjection) === 0 ? null : new GuestApic(apicId)

/** A call was served: now and then an IPI goes to the SVSM on the next CPU, as work that is shared by CPUs needs. */
export function* afterCall(state: SvsmState, apicId: number): Program {
  const cpu = state.interrupts[apicId]
  const { interrupts, vcpus } = state.parameters
  if (cpu === undefined || interrupts === undefined || interrupts.ipiVector === 0) return
  if (++cpu.calls < interrupts.callsPerIpi) return
  cpu.calls = 0
  yield* cpu.ghcb.use()
  yield* sendIpi((apicId + 1) % vcpus, interrupts.ipiVector)
}
