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

/** Readers and one writer, spinning with PAUSE and backing off. */
export class RwLock implements Lock {
  #readers = 0
  #writing = false;

  *read(): Program {
    for (let times = 1; this.#writing; times = backOff(times)) yield pause(times)
    this.#readers++
  }

  *write(): Program {
    for (let times = 1; this.#writing || this.#readers > 0; times = backOff(times)) yield pause(times)
    this.#writing = true
  }

  release(): void {
    if (this.#writing) this.#writing = false
    else this.#readers--
  }
}

/** No lock at all: every call goes on at once. It shows which attacks the lock is there for. */
export const NO_LOCK: Lock = {
  *read() {},
  *write() {},
  release() {}
}
