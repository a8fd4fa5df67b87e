/** A connection between two hosts, as assumed. */
export interface LinkOptions {
  readonly bitsPerSecond: number
  /** From the last byte sent to the last one received, either way. */
  readonly latencyNs: number
}

/** What is on its way: bytes as the carrier has them, and when they are there, in the sender's time. */
export interface Message {
  readonly bytes: Uint8Array
  readonly arrivesNs: number
  readonly kind: "pages" | "state"
}

/** Messages that the receiver's host keeps until its guest takes them. */
const WINDOW = 4

/** One direction of a connection: what is sent waits for what was sent before, and for room at the other end. */
export class Link {
  bytes = 0
  readonly #options: LinkOptions
  #freeNs = 0
  /** When each message was taken at the other end, in the sender's time. */
  readonly #takenNs: Array<number> = []
  #sent = 0

  constructor(options: LinkOptions) {
    this.#options = options
  }

  /**
   * Sends at a time.
   * @returns the message, and virtual ns until its first byte goes: until then the sender's buffer is full, as it holds
   * what goes meanwhile and one more message
   */
  send(
    nowNs: number,
    kind: Message["kind"],
    bytes: Uint8Array
  ): { readonly message: Message; readonly waitNs: number } {
    const { bitsPerSecond, latencyNs } = this.#options
    const roomNs = (this.#takenNs[this.#sent++ - WINDOW] ?? -latencyNs) + latencyNs
    const begin = Math.max(nowNs, this.#freeNs, roomNs)
    this.#freeNs = begin + Math.ceil((bytes.length * 8 * 1e9) / bitsPerSecond)
    this.bytes += bytes.length
    return { message: { kind, bytes, arrivesNs: this.#freeNs + latencyNs }, waitNs: begin - nowNs }
  }

  /** The receiver is through with one more message. */
  taken(ns: number): void {
    this.#takenNs.push(ns)
  }
}
