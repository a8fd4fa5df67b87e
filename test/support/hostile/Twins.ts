import type { SvsmBehaviour } from "@vmpl-lab/svsm"
import { HostileGuest } from "./Guest.ts"
import { HostileMachine } from "./Machine.ts"
import { MARKER } from "./Secrets.ts"
import { type Leak, servicesOf } from "./Services.ts"

/** Two fillings of VMPL0's secrets: any two will do. */
const FILLINGS = [101, 202] as const
/** Calls between two looks at all that is visible. */
const CALLS_PER_LOOK = 100

export interface TwinOptions {
  readonly seed: number
  readonly behaviour: SvsmBehaviour
  readonly guestVmpl: 1 | 2
  readonly isHostHostile: boolean
  readonly isMigrating: boolean
  /** Makes the service at SERVICE.LEAKY one that does not keep its secret. */
  readonly leak?: Leak
  /** Pages that the guest plays with beside the others. */
  readonly pages?: ReadonlyArray<number>
}

/**
 * Non-interference: the same guest and the same host before two SVSMs that differ in their secrets alone. Whatever shows
 * a difference below VMPL0, in bytes, in answers or in time, tells of a secret.
 */
export class Twins {
  readonly guests: readonly [HostileGuest, HostileGuest]
  /** What shows, or null. */
  leak: string | null = null
  #looked = 0

  constructor({ leak = null as unknown as Leak, ...options }: TwinOptions) {
    const [one, other] = FILLINGS.map(
      (filling) => new HostileGuest(new HostileMachine({ ...options, filling, services: servicesOf(leak) }))
    )
    this.guests = [one!, other!]
  }

  /** Goes on until so many calls were made, or something shows. */
  run(calls: number): void {
    const [one, other] = this.guests
    while (one.calls < calls && this.leak === null) {
      one.step()
      other.step()
      if (one.machine.record.digest !== other.machine.record.digest) this.#tellRecords()
      else if (one.calls >= this.#looked + CALLS_PER_LOOK) this.#look()
    }
    if (this.leak === null) this.#look()
  }

  #tellRecords(): void {
    const [one, other] = this.guests.map(({ machine }) => machine.record.latest)
    const at = one!.findIndex((line, i) => line !== other![i])
    const where = at < 0 ? `after ${one!.at(-1)}` : `${one![at]} here, ${other![at]} there`
    this.leak = `call ${this.guests[0].calls}: ${where}`
  }

  /** Compares everything that is visible, byte by byte. */
  #look(): void {
    const [one, other] = this.guests.map(({ machine }) => machine.visible())
    this.#looked = this.guests[0].calls
    if (one!.size !== other!.size)
      this.leak = `call ${this.#looked}: ${one!.size} frames are visible, and ${other!.size}`
    for (const [pfn, bytes] of one!) {
      if (new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4).includes(MARKER)) {
        this.leak ??= `call ${this.#looked}: a marked word in frame 0x${pfn.toString(16)}`
      }
      const others = other!.get(pfn)
      if (others !== undefined && Buffer.compare(bytes, others) === 0) continue
      const at = bytes.findIndex((byte, i) => byte !== others?.[i])
      this.leak ??= `call ${this.#looked}: byte 0x${at.toString(16)} of frame 0x${pfn.toString(16)}`
    }
  }
}
