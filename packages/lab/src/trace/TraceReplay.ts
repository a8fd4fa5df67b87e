import { duplicateKey } from "../JsonText.ts"
import type { Explainer, Explanation } from "./Explainer.ts"
import { LineInvalid } from "./Fields.ts"
import { LINE_LENGTH_MAX, LineSplitter, LineTooLong } from "./LineSplitter.ts"
import { parseMemoryAction } from "./MemoryAction.ts"
import { MemoryMachine } from "./MemoryMachine.ts"
import { parseAction } from "./ParseAction.ts"
import { isConfig, parseConfig } from "./ParseConfig.ts"
import type { Reply } from "./Reply.ts"
import { TraceMachine } from "./TraceMachine.ts"

/** How a trace is replayed. */
export interface ReplayOptions {
  /** Adds to each reply the rule that decided, as the key `explain`. */
  readonly explainer?: Explainer
  /** Takes the operations on memory contents too, which are no part of the common format. */
  readonly memory?: boolean
}

/** What one chunk of a trace gave: the replies as text, one a line, and what ended the replay, if anything did. */
export interface Replayed {
  readonly out: string
  /** One line that names line number, key and what was expected; null: go on. */
  readonly error: string | null
}

const BLANK = /^[ \t\r]*$/

/** JSON.parse would keep the last of two equal keys; a line with as many colons as keys has none. */
const refuseDuplicateKey = (text: string, value: unknown): void => {
  let colons = 0
  for (let at = text.indexOf(":"); at >= 0; at = text.indexOf(":", at + 1)) colons++
  if (colons === countKeys(value)) return
  const twice = duplicateKey(text)
  if (twice !== null) throw new LineInvalid(twice, "given twice", "once")
}

const countKeys = (value: unknown): number => {
  let keys = 0
  if (typeof value !== "object" || value === null) return keys
  for (const one of Object.values(value)) keys += 1 + countKeys(one)
  return keys
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new LineInvalid(
      "",
      `not valid JSON (${cause instanceof Error ? cause.message : String(cause)})`,
      "one JSON object"
    )
  }
}

/**
 * Replays a trace that comes in chunks of bytes. Holds one line and the machine, never the trace: memory does not grow
 * with its length. Replies do not depend on where the chunks are cut.
 */
export class TraceReplay {
  readonly #options: ReplayOptions
  readonly #lines = new LineSplitter()
  #machine: TraceMachine | null = null
  #line = 0
  #out = ""

  constructor(options: ReplayOptions = {}) {
    this.#options = options
  }

  /** Replays the lines that the chunk completes. After an error no more may be fed. */
  feed(chunk: Uint8Array): Replayed {
    return this.#replay(() => this.#lines.push(chunk, this.#next))
  }

  /** Replays a last line without a line feed. A trace without its first line is an error. */
  end(): Replayed {
    return this.#replay(() => {
      this.#lines.end(this.#next)
      if (this.#machine !== null) return
      this.#line = Math.max(1, this.#line)
      parseConfig({})
    })
  }

  #replay(run: () => void): Replayed {
    let error: string | null = null
    try {
      run()
    } catch (cause) {
      if (cause instanceof LineTooLong)
        error = `line ${this.#line + 1}: too long, expected at most ${LINE_LENGTH_MAX} characters`
      else if (cause instanceof LineInvalid) error = `line ${this.#line}: ${cause.message}`
      else throw cause
    }
    const out = this.#out
    this.#out = ""
    return { out, error }
  }

  readonly #next = (text: string): void => {
    this.#line++
    if (BLANK.test(text)) return
    const value = parsed(text)
    if (this.#machine === null) this.#begin(text, value)
    else this.#step(this.#machine, text, value)
  }

  #begin(text: string, value: unknown): void {
    const config = parseConfig(value)
    refuseDuplicateKey(text, value)
    this.#machine = this.#options.memory === true ? new MemoryMachine(config) : new TraceMachine(config)
    this.#print({ ok: true, switches: config.switches }, null)
  }

  #step(machine: TraceMachine, text: string, value: unknown): void {
    if (isConfig(value)) throw new LineInvalid("config", "given again", "it on the first line only")
    const touch = machine instanceof MemoryMachine ? parseMemoryAction(value, machine.config.vmpls) : null
    if (touch !== null) {
      refuseDuplicateKey(text, value)
      this.#print((machine as MemoryMachine).touch(touch), null)
      return
    }
    const action = parseAction(value, machine.config.vmpls)
    refuseDuplicateKey(text, value)
    // The rule is asked for first: it depends on the machine as the action finds it.
    const explanation = this.#options.explainer?.(action, machine) ?? null
    this.#print(machine.apply(action), explanation)
  }

  #print(reply: Reply, explain: Explanation | null): void {
    const explained = this.#options.explainer === undefined ? reply : { ...reply, explain }
    this.#out += `${JSON.stringify(explained)}\n`
  }
}
