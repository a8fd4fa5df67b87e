import { TIMER_MODE } from "./LapicRegisters.ts"

/** APIC_BUS_CYCLE_NS: one tick of the timer before its divider, in ns. */
export const APIC_BUS_CYCLE_NS = 1

/** min_timer_period_us, in ns: KVM lets no periodic timer run faster. */
export const MIN_TIMER_PERIOD_NS = 200_000

/** What the timer needs of its surroundings: virtual ns, and an alarm. */
export interface TimerClock {
  readonly now: () => number
  readonly armTimer: (at: number | null) => void
}

/** Ticks that one count takes, for TDCR bits 3, 1 and 0. @spec APM2 "APIC Timer Operation" */
export const divideCount = (tdcr: number): number => 1 << ((((tdcr & 3) | ((tdcr & 8) >> 1)) + 1) & 7)

/**
 * The timer of a local APIC (struct kvm_timer). The current count is never stored: it follows from virtual time and the
 * time of expiry. @spec APM2 "APIC Timer Operation"; KVM where it decides what the manuals leave open
 */
export class LapicTimer {
  readonly #clock: TimerClock
  #mode: number = TIMER_MODE.ONE_SHOT
  #initialCount = 0
  #tdcr = 0
  /** ns; 0 when nothing has been started. */
  #period = 0
  /** Virtual ns of the next expiry, or -1. */
  #target = -1
  #tscDeadline = 0

  constructor(clock: TimerClock) {
    this.#clock = clock
  }

  get initialCount(): number {
    return this.#initialCount
  }

  get tdcr(): number {
    return this.#tdcr
  }

  /** The deadline, or 0 when none is pending or the timer is in another mode. In ns. */
  get tscDeadline(): number {
    return this.#mode === TIMER_MODE.TSC_DEADLINE ? this.#tscDeadline : 0
  }

  /** LVTT[18:17] was written. Going to or from TSC deadline stops the timer; between the other modes it runs on. */
  setMode(mode: number): void {
    if (mode === this.#mode) return
    if ((mode === TIMER_MODE.TSC_DEADLINE) !== (this.#mode === TIMER_MODE.TSC_DEADLINE)) {
      this.#stop()
      this.#initialCount = 0
    }
    this.#mode = mode
    this.#limitPeriod()
  }

  /** TMICT was written: counts from here, 0 stops. Ignored in TSC-deadline mode. */
  setInitialCount(count: number): void {
    if (this.#mode === TIMER_MODE.TSC_DEADLINE) return
    this.#stop()
    this.#initialCount = count
    if (this.#mode !== TIMER_MODE.ONE_SHOT && this.#mode !== TIMER_MODE.PERIODIC) return
    this.#period = this.#countsToNs(count)
    if (this.#period === 0) return
    this.#limitPeriod()
    this.#arm(this.#clock.now() + this.#period)
  }

  /**
   * TDCR was written: what is left of the count takes the new divider. A one-shot timer that has expired stays so,
   * where KVM would let it expire once more.
   */
  setDivide(tdcr: number): void {
    const before = divideCount(this.#tdcr)
    this.#tdcr = tdcr & 0xb
    const after = divideCount(this.#tdcr)
    if (before === after || this.#mode === TIMER_MODE.TSC_DEADLINE) return
    this.#period = this.#countsToNs(this.#initialCount)
    this.#limitPeriod()
    if (this.#target < 0) return
    const now = this.#clock.now()
    this.#arm(now + Math.floor((Math.max(0, this.#target - now) * after) / before))
  }

  /** TMCCT: what is left, in counts. */
  currentCount(): number {
    if (this.#mode === TIMER_MODE.TSC_DEADLINE || this.#target < 0 || this.#period === 0) return 0
    const left = this.#target - this.#clock.now()
    if (left <= 0) return 0
    // A full period is left right after the start. More than one is left when a divider grew over a limited period.
    const inPeriod = ((left - 1) % this.#period) + 1
    return Math.floor(inPeriod / (APIC_BUS_CYCLE_NS * divideCount(this.#tdcr)))
  }

  /** MSR TSC_DEADLINE was written, in ns; 0 disarms. @returns true when the deadline has passed already */
  setTscDeadline(ns: number): boolean {
    if (this.#mode !== TIMER_MODE.TSC_DEADLINE) return false
    this.#stop()
    if (ns === 0) return false
    if (ns <= this.#clock.now()) return true
    this.#tscDeadline = ns
    this.#arm(ns)
    return false
  }

  /** The alarm. @returns true when the timer has expired: an alarm that was overtaken by a write is none */
  expired(): boolean {
    const now = this.#clock.now()
    if (this.#target < 0 || now < this.#target) return false
    this.#tscDeadline = 0
    if (this.#mode === TIMER_MODE.PERIODIC) {
      // Missed periods are not made up for.
      this.#arm(Math.max(this.#target + this.#period, now))
    } else {
      this.#target = -1
    }
    return true
  }

  /** INIT. */
  reset(): void {
    this.#stop()
    this.#mode = TIMER_MODE.ONE_SHOT
    this.#initialCount = 0
    this.#tdcr = 0
  }

  #stop(): void {
    if (this.#target >= 0) this.#clock.armTimer(null)
    this.#target = -1
    this.#period = 0
    this.#tscDeadline = 0
  }

  #arm(at: number): void {
    this.#target = at
    this.#clock.armTimer(at)
  }

  #countsToNs(count: number): number {
    return count * APIC_BUS_CYCLE_NS * divideCount(this.#tdcr)
  }

  #limitPeriod(): void {
    if (this.#mode === TIMER_MODE.PERIODIC && this.#period > 0 && this.#period < MIN_TIMER_PERIOD_NS) {
      this.#period = MIN_TIMER_PERIOD_NS
    }
  }
}
