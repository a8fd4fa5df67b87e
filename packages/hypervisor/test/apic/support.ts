import { type ApicMessage, DELIVERY_MODE, Lapic, type LapicBus } from "../../src/index.ts"

/** A fixed, edge-triggered, physical message from outside, unless said otherwise. */
export const message = (fields: Partial<ApicMessage> = {}): ApicMessage => ({
  destination: 0,
  logical: false,
  shorthand: 0,
  deliveryMode: DELIVERY_MODE.FIXED,
  vector: 0x40,
  levelTriggered: false,
  assert: true,
  sender: -1,
  x2apic: false,
  ...fields
})

/** A bus that remembers what came by, and virtual time that a test moves. */
export class TestBus implements LapicBus {
  time = 0
  alarm: number | null = null
  raised = 0
  readonly sent: Array<ApicMessage> = []
  readonly ended: Array<number> = []
  readonly now = (): number => this.time
  readonly armTimer = (at: number | null): void => {
    this.alarm = at
  }
  readonly send = (sent: ApicMessage): void => {
    this.sent.push(sent)
  }
  readonly endOfInterrupt = (vector: number): void => {
    this.ended.push(vector)
  }
  readonly raise = (): void => {
    this.raised++
  }
}

export const X2APIC_BASE = 0xfee0_0c00

/** An APIC in xAPIC or x2APIC mode, software-enabled, with its bus. */
export const enabledLapic = (id = 0, x2apic = false): { lapic: Lapic; bus: TestBus } => {
  const bus = new TestBus()
  const lapic = new Lapic(id, bus, false)
  lapic.write(0xf0, 0x1ff)
  if (x2apic) lapic.writeApicBase(X2APIC_BASE)
  return { lapic, bus }
}

/** Lets time pass, calling the timer at each alarm on the way. @returns the times of the alarms */
export const passTime = (lapic: Lapic, bus: TestBus, until: number): ReadonlyArray<number> => {
  const alarms: Array<number> = []
  while (bus.alarm !== null && bus.alarm <= until) {
    bus.time = Math.max(bus.time, bus.alarm)
    alarms.push(bus.time)
    bus.alarm = null
    lapic.timerExpired()
  }
  bus.time = until
  return alarms
}
