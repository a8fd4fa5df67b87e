import type { Socket } from "node:net"

/** A connection read in pieces of known length. What the other side sends ahead waits in its socket. */
export class ByteStream {
  readonly #socket: Socket
  readonly #chunks: AsyncIterator<Uint8Array>
  #rest: Uint8Array = new Uint8Array(0)

  constructor(socket: Socket) {
    this.#socket = socket
    this.#chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>
  }

  /** So many bytes; fewer where the other side went away before it had sent them all. */
  async read(length: number): Promise<Uint8Array> {
    while (this.#rest.length < length) {
      const next = await this.#chunks.next().catch(() => ({ done: true as const, value: undefined }))
      if (next.done === true) break
      this.#rest = new Uint8Array(Buffer.concat([this.#rest, next.value]))
    }
    const taken = this.#rest.subarray(0, length)
    this.#rest = this.#rest.subarray(taken.length)
    return taken
  }

  /** A reader that has gone away is no error: the next read tells. */
  write(bytes: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(bytes)
  }
}
