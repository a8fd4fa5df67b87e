import type { Program } from "@vmpl-lab/vmpl"
import { pause } from "@vmpl-lab/vmpl"

/** What keeps the calls of several CPUs apart. */
export interface Lock {
  readonly read: () => Program
  readonly write: () => Program
  readonly release: () => void
}

/** Each look that finds a lock taken doubles the PAUSEs until the next one, up to 64. */
const backOff = (times: number): number => Math.min(2 * times, 64)

/**
 * Readers and one writer, spinning with PAUSE and backing off. A writer that waits lets no new reader in, as in
 * COCONUT-SVSM: CPUs that validate list after list would otherwise starve it.
 */
export class RwLock implements Lock {
  #readers = 0
  /** Held for writing, or as soon as the last reader has gone. */
  #writing = false;

  *read(): Program {
    for (let times = 1; this.#writing; times = backOff(times)) yield pause(times)
    this.#readers++
  }

  *write(): Program {
    for (let times = 1; this.#writing; times = backOff(times)) yield pause(times)
    this.#writing = true
    for (let times = 1; this.#readers > 0; times = backOff(times)) yield pause(times)
  }

  /** Who holds it or waits to. */
  get held(): string {
    return `${this.#readers} readers${this.#writing ? ", a writer" : ""}`
  }

  release(): void {
    // While there are readers, a writer can only be waiting.
    if (this.#readers > 0) this.#readers--
    else this.#writing = false
  }
}

/** No lock at all: every call goes on at once. It shows which attacks the lock is there for. */
export const NO_LOCK: Lock = {
  *read() {},
  *write() {},
  release() {}
}
