/** A longer line is no line of a trace: it would have to be held in memory whole. */
export const LINE_LENGTH_MAX = 1 << 20

/** A line is longer than LINE_LENGTH_MAX characters. */
export class LineTooLong extends Error {}

/**
 * Cuts a stream of UTF-8 bytes into lines, however it comes in chunks. A line feed ends a line, a carriage return
 * before it is left to JSON, to which it is a blank; a byte-order mark at the very start is dropped.
 */
export class LineSplitter {
  readonly #decoder = new TextDecoder()
  #rest = ""

  /** Calls `line` for each line that the chunk completes. @throws LineTooLong */
  push(chunk: Uint8Array, line: (text: string) => void): void {
    this.#split(this.#decoder.decode(chunk, { stream: true }), line)
  }

  /** Calls `line` for a last line without line feed. @throws LineTooLong */
  end(line: (text: string) => void): void {
    this.#split(this.#decoder.decode(), line)
    const rest = this.#rest
    this.#rest = ""
    if (rest !== "") line(rest)
  }

  #split(text: string, line: (text: string) => void): void {
    let from = 0
    for (let to = text.indexOf("\n"); to >= 0; to = text.indexOf("\n", from)) {
      const part = text.slice(from, to)
      const whole = this.#rest === "" ? part : this.#rest + part
      this.#rest = ""
      if (whole.length > LINE_LENGTH_MAX) throw new LineTooLong()
      line(whole)
      from = to + 1
    }
    this.#rest += text.slice(from)
    if (this.#rest.length > LINE_LENGTH_MAX) throw new LineTooLong()
  }
}
