import { CALLING_AREA } from "@vmpl-lab/guest"
import {
  decodeEventInjection,
  EVENT_INJECTION_VALID,
  EVENT_TYPE,
  INJECT_NMI,
  INT_CTL,
  injectInterrupt,
  VINTR_CTRL,
  VINTR_CTRL_BUSY_HI,
  VMSA
} from "@vmpl-lab/sev-es"
import { type Program, RFLAGS_IF, read, write } from "@vmpl-lab/vmpl"
import type { GuestApic } from "./GuestApic.ts"
import type { GuestVmsa } from "./State.ts"

/** VINTR_CTRL: the interrupt shadow. */
export const SHADOW = 1 << VINTR_CTRL.INTR_SHADOW.bit

/** What of VINTR_CTRL a virtual interrupt takes. */
const QUEUED = INT_CTL.V_IRQ | (0xf << INT_CTL.V_INTR_PRIO_SHIFT)

/**
 * Alternate injection by the SVSM: what its emulated APIC has for the guest goes into EVENTINJ or VINTR_CTRL of the
 * guest's VMSA, which is not running meanwhile.
 * @spec APM2 15.36.16
 */
export class GuestInjection {
  readonly #apic: GuestApic
  /** Vector that waits in VINTR_CTRL, or -1. */
  #queued = -1
  /** The guest was told that it need not say when its handler ends. */
  #lazy = false

  readonly #offersLazyEoi: boolean

  /** @param lazyEoi byte 2 of the calling area may spare the guest its EOI calls */
  constructor(apic: GuestApic, lazyEoi: boolean) {
    this.#apic = apic
    this.#offersLazyEoi = lazyEoi
  }

  /** Before the guest runs: the next interrupt goes in if the guest can take it now, else it waits until it can. */
  *refresh({ vmsaGpa, caGpa }: GuestVmsa): Program {
    const apic = this.#apic
    const vector = apic.next()
    if (apic.nmi) yield* this.#injectNmi(vmsaGpa)
    if (vector >= 0) {
      const rflags = (yield read(vmsaGpa + VMSA.rflags, 4)).lo
      const control = (yield read(vmsaGpa + VMSA.vintr_ctrl, 4)).lo
      const event = (yield read(vmsaGpa + VMSA.event_inj, 4)).lo
      const isOpen = (rflags & RFLAGS_IF) !== 0 && (control & SHADOW) === 0 && apic.passes(vector)
      if (isOpen && event < EVENT_INJECTION_VALID) {
        yield write(vmsaGpa + VMSA.event_inj, 8, injectInterrupt(vector))
        apic.take(vector)
      } else {
        const asked = INT_CTL.V_IRQ | ((vector >> 4) << INT_CTL.V_INTR_PRIO_SHIFT)
        yield write(vmsaGpa + VMSA.vintr_ctrl, 8, (control & ~QUEUED) | asked, vector)
        this.#queued = vector
      }
    }
    if (!this.#offersLazyEoi) return
    this.#lazy = apic.needsNoEoi(this.#queued)
    yield write(caGpa + CALLING_AREA.no_eoi_required, 1, this.#lazy ? 1 : 0)
  }

  /** An NMI goes in as soon as no other event does; interrupts then find EVENTINJ taken. */
  *#injectNmi(vmsaGpa: number): Program {
    if ((yield read(vmsaGpa + VMSA.event_inj, 4)).lo >= EVENT_INJECTION_VALID) return
    yield write(vmsaGpa + VMSA.event_inj, 8, INJECT_NMI)
    this.#apic.nmi = false
  }

  /** After the guest ran: what was interrupted on its way in goes in again, what has not gone in is taken back. */
  *returned({ vmsaGpa, caGpa }: GuestVmsa): Program {
    const control = yield read(vmsaGpa + VMSA.vintr_ctrl, 8)
    const lo = control.lo
    // A guest that has written CR8 has cleared the subclass with it.
    const cr8 = lo & INT_CTL.V_TPR_MASK
    if (cr8 !== this.#apic.tpr >>> 4) this.#apic.tpr = cr8 << 4
    const isBusy = (control.hi & VINTR_CTRL_BUSY_HI) !== 0
    const wasTaken = this.#queued >= 0 && (lo & INT_CTL.V_IRQ) === 0
    if (isBusy || this.#queued >= 0) yield write(vmsaGpa + VMSA.vintr_ctrl, 8, lo & ~QUEUED, 0)
    if (wasTaken) this.#apic.take(this.#queued)
    this.#queued = -1
    const interrupted = yield read(vmsaGpa + VMSA.guest_exit_int_info, 8)
    const { lo: eventLo, hi: eventHi } = interrupted
    if (eventLo >= EVENT_INJECTION_VALID) yield write(vmsaGpa + VMSA.event_inj, 8, eventLo, eventHi)
    if (this.#lazy && (yield read(caGpa + CALLING_AREA.no_eoi_required, 1)).lo === 0) this.#apic.endOfInterrupt()
    this.#lazy = false
  }

  /**
   * Nothing more goes in this way: an event that still stands in EVENTINJ waits in the emulated APIC again, and the guest
   * is to end what is in service itself.
   */
  *takeBack({ vmsaGpa, caGpa }: GuestVmsa): Program {
    const { lo } = yield read(vmsaGpa + VMSA.event_inj, 4)
    const { type, vector, valid } = decodeEventInjection(lo)
    if (valid && (type === EVENT_TYPE.INTR || type === EVENT_TYPE.NMI)) {
      yield write(vmsaGpa + VMSA.event_inj, 8, 0)
      if (type === EVENT_TYPE.NMI) this.#apic.nmi = true
      else this.#apic.untake(vector)
    }
    if (this.#offersLazyEoi) yield write(caGpa + CALLING_AREA.no_eoi_required, 1, 0)
  }
}
