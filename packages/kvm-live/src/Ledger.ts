import type { Os } from "./os/Os.ts"

/** Entries of 24 bytes: kind (0 free, 1 file descriptor, 2 mapping), descriptor or address, bytes. */
const ENTRIES = 1_024
const WORDS = 3
const FREE = 0n
const FD = 1n
const MAPPING = 2n

/** What one thread holds open, in memory that another thread sees: a thread that dies cannot release it itself. */
export class Ledger {
  readonly memory: SharedArrayBuffer
  readonly #words: BigInt64Array

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(ENTRIES * WORDS * 8)) {
    this.memory = memory
    this.#words = new BigInt64Array(memory)
  }

  addFd(fd: number): number {
    return this.#add(FD, BigInt(fd), 0n)
  }

  addMapping(address: bigint, bytes: number): number {
    return this.#add(MAPPING, address, BigInt(bytes))
  }

  remove(entry: number): void {
    this.#words[entry * WORDS] = FREE
  }

  /** Entries in use. */
  get open(): number {
    return Array.from({ length: ENTRIES }, (_, i) => this.#words[i * WORDS]).filter((kind) => kind !== FREE).length
  }

  /** Closes and unmaps whatever is left, the newest first. */
  releaseAll(os: Os): void {
    for (let entry = ENTRIES - 1; entry >= 0; entry--) {
      const at = entry * WORDS
      const [kind, value, bytes] = [this.#words[at], this.#words[at + 1]!, this.#words[at + 2]!]
      if (kind === FD) os.close(Number(value))
      else if (kind === MAPPING) os.munmap(os.remap(value, Number(bytes)))
      this.#words[at] = FREE
    }
  }

  #add(kind: bigint, value: bigint, bytes: bigint): number {
    const entry = this.#words.findIndex((word, i) => i % WORDS === 0 && word === FREE) / WORDS
    if (entry < 0) throw new Error(`more than ${ENTRIES} things open in one thread`)
    this.#words[entry * WORDS + 1] = value
    this.#words[entry * WORDS + 2] = bytes
    this.#words[entry * WORDS] = kind
    return entry
  }
}
