import { createHash, type Hash } from "node:crypto"
import type { AcceptedShare, GuestReport } from "@vmpl-lab/guest"

/** A share of accepted memory with the VMPL switches that it took. */
export interface MeteredShare extends AcceptedShare {
  readonly switches: number
  readonly switchNs: number
}

/** Characters. */
const HASHED_AT_ONCE = 2_000

/** What the guest's vCPUs reported: how far each is, and a digest of every call and its result, in order. */
export class GuestLog implements GuestReport {
  readonly #hashes: ReadonlyArray<Hash>
  /** By vCPU: text that its hash has not been fed with yet. One call to the hash for each is too much. */
  readonly #unhashed: Array<string>
  readonly #ready: Array<boolean>
  /** vCPUs that are up at the guest's level. */
  started = 0
  /** vCPUs that have made all their calls. */
  finished = 0
  callsMade = 0
  /** Results other than success, by value. */
  readonly failures = new Map<number, number>()

  constructor(vcpus: number) {
    this.#hashes = Array.from({ length: vcpus }, () => createHash("sha256"))
    this.#unhashed = new Array(vcpus).fill("")
    this.#ready = new Array(vcpus).fill(false)
  }

  readonly ready = (apicId: number): void => {
    this.#ready[apicId] = true
    this.started++
    if (this.started === this.#ready.length) this.allReady()
  }

  readonly called = (apicId: number, kind: number, result: number): void => {
    this.callsMade++
    const unhashed = `${this.#unhashed[apicId]}${kind}:${result};`
    const isEnough = unhashed.length >= HASHED_AT_ONCE
    if (isEnough) this.#hashes[apicId]!.update(unhashed)
    this.#unhashed[apicId] = isEnough ? "" : unhashed
    if (result !== 0) this.failures.set(result, (this.failures.get(result) ?? 0) + 1)
  }

  /** When the last vCPU with all its levels was up, by its TSC; -1 before any is. */
  upNs = -1
  /** Shares of accepted memory, in the order in which they were finished. */
  readonly shares: Array<MeteredShare> = []
  /** Called when the last vCPU is ready. */
  allReady: () => void = () => {}
  /** What the host's meter knows of a vCPU's switches so far. */
  switching: (apicId: number) => Pick<MeteredShare, "switches" | "switchNs"> = () => ({ switches: 0, switchNs: 0 })

  readonly up = (_apicId: number, ns: number): void => {
    this.upNs = Math.max(this.upNs, ns)
  }

  readonly accepted = (apicId: number, share: AcceptedShare): void => {
    this.shares.push({ ...share, ...this.switching(apicId) })
  }

  readonly done = (): void => {
    this.finished++
  }

  isReady(apicId: number): boolean {
    return this.#ready[apicId] === true
  }

  /** SHA-256 over the vCPUs' digests, hex. The log takes no more after this. */
  digest(): string {
    const all = createHash("sha256")
    for (const [apicId, hash] of this.#hashes.entries()) all.update(hash.update(this.#unhashed[apicId]!).digest())
    return all.digest("hex")
  }
}
