import type { Ledger } from "./Ledger.ts"
import type { Mapping, Os } from "./os/Os.ts"

/** What is open, in the order in which it was opened; released in the reverse order, once, whatever happens. */
export class Resources {
  readonly #os: Os
  readonly #ledger: Ledger | null
  readonly #finalizers: Array<() => void> = []

  /** @param ledger also told, so that another thread can release what this one leaves when it dies */
  constructor(os: Os, ledger: Ledger | null = null) {
    this.#os = os
    this.#ledger = ledger
  }

  /** A file descriptor to be closed. */
  fd(fd: number): number {
    const entry = this.#ledger?.addFd(fd)
    this.#finalizers.push(() => {
      this.#os.close(fd)
      if (entry !== undefined) this.#ledger?.remove(entry)
    })
    return fd
  }

  mapping(mapping: Mapping): Mapping {
    const entry = this.#ledger?.addMapping(mapping.address, mapping.bytes)
    this.#finalizers.push(() => {
      this.#os.munmap(mapping)
      if (entry !== undefined) this.#ledger?.remove(entry)
    })
    return mapping
  }

  release(): void {
    for (let finalizer = this.#finalizers.pop(); finalizer !== undefined; finalizer = this.#finalizers.pop()) {
      finalizer()
    }
  }
}
