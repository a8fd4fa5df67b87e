/** Ticks of the 8254 in one second. */
const PIT_HZ = 1_193_182
const NS_PER_S = 1_000_000_000

/** Ports of the three counters and of the control word. */
export const PIT_PORT = { CHANNEL0: 0x40, CONTROL: 0x43 } as const

const ACCESS = { LATCH: 0, LOW: 1, HIGH: 2, WORD: 3 } as const
const READ_BACK = 3

/** One counter: what was loaded, when, and how far a read or write of two bytes has come. */
interface Channel {
  count: number
  loadedAt: number
  mode: number
  bcd: number
  access: number
  /** The low byte of a word has been read or written, the high byte comes next. */
  highNext: boolean
  low: number
  latched: number | null
  latchedStatus: number | null
}

const powerOn = (): Channel => ({
  count: 0x1_0000,
  loadedAt: 0,
  mode: 3,
  bcd: 0,
  access: ACCESS.WORD,
  highNext: false,
  low: 0,
  latched: null,
  latchedStatus: null
})

/** Whole ticks of a span of virtual time. Seconds and the rest apart, so that no product leaves exact integers. */
const ticks = (ns: number): number =>
  Math.floor(ns / NS_PER_S) * PIT_HZ + Math.floor(((ns % NS_PER_S) * PIT_HZ) / NS_PER_S)

/**
 * KVM_CREATE_PIT2: the 8254 in the kernel, its counters in virtual time. Its interrupt line is not connected.
 * @spec Linux arch/x86/kvm/i8254.c
 */
export class Pit {
  readonly #channels: ReadonlyArray<Channel> = [powerOn(), powerOn(), powerOn()]

  /** A byte of a counter, or of a latched status; the control port reads as 0. `now` in virtual ns. */
  read(port: number, now: number): number {
    const channel = this.#channels[port - PIT_PORT.CHANNEL0]
    if (channel === undefined) return 0
    if (channel.latchedStatus !== null) {
      const status = channel.latchedStatus
      channel.latchedStatus = null
      return status
    }
    const value = channel.latched ?? this.#count(channel, now)
    const isWord = channel.access === ACCESS.WORD
    const high = channel.access === ACCESS.HIGH || (isWord && channel.highNext)
    if (isWord) channel.highNext = !channel.highNext
    if (!isWord || high) channel.latched = null
    return high ? (value >>> 8) & 0xff : value & 0xff
  }

  write(port: number, byte: number, now: number): void {
    if (port === PIT_PORT.CONTROL) {
      this.#control(byte, now)
      return
    }
    const channel = this.#channels[port - PIT_PORT.CHANNEL0]!
    if (channel.access === ACCESS.WORD && !channel.highNext) {
      channel.low = byte
      channel.highNext = true
      return
    }
    channel.highNext = false
    const value =
      channel.access === ACCESS.LOW ? byte : (byte << 8) | (channel.access === ACCESS.WORD ? channel.low : 0)
    // A counter loaded with 0 counts its whole range.
    channel.count = value === 0 ? 0x1_0000 : value
    channel.loadedAt = now
  }

  #control(byte: number, now: number): void {
    const select = byte >>> 6
    if (select === READ_BACK) {
      for (const [i, channel] of this.#channels.entries()) {
        if ((byte & (2 << i)) === 0) continue
        if ((byte & 0x20) === 0) this.#latch(channel, now)
        if ((byte & 0x10) === 0) channel.latchedStatus ??= this.#status(channel, now)
      }
      return
    }
    const channel = this.#channels[select]!
    const access = (byte >>> 4) & 3
    if (access === ACCESS.LATCH) {
      this.#latch(channel, now)
      return
    }
    // Modes 6 and 7 are other names of 2 and 3.
    const mode = (byte >>> 1) & 7
    channel.access = access
    channel.mode = mode > 5 ? mode - 4 : mode
    channel.bcd = byte & 1
    channel.highNext = false
  }

  #latch(channel: Channel, now: number): void {
    channel.latched ??= this.#count(channel, now)
  }

  /** Modes 2 and 3 count again and again, the latter in steps of two; the others once, and go on below zero. */
  #count({ mode, count, loadedAt }: Channel, now: number): number {
    const passed = ticks(now - loadedAt)
    const value = mode === 3 ? count - ((2 * passed) % count) : mode === 2 ? count - (passed % count) : count - passed
    return ((value % 0x1_0000) + 0x1_0000) % 0x1_0000
  }

  #status(channel: Channel, now: number): number {
    const { access, mode, bcd } = channel
    return (this.#output(channel, now) ? 0x80 : 0) | (access << 4) | (mode << 1) | bcd
  }

  #output({ mode, count, loadedAt }: Channel, now: number): boolean {
    const passed = ticks(now - loadedAt)
    if (mode <= 1) return passed >= count
    if (mode === 2) return passed !== 0 && passed % count === 0
    if (mode === 3) return passed % count < (count + 1) >> 1
    return passed === count
  }
}
