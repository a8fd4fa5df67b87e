import { MIGRATION_ROLE, SVSM_RESULT } from "@vmpl-lab/guest"
import { RunFailed } from "../RunFailed.ts"
import { stateDigest } from "./GuestDigest.ts"
import type { Message } from "./Link.ts"
import type { MigrationSide } from "./MigrationSide.ts"
import { migrationResultName } from "./ResultName.ts"

/** The target's end: its agent takes what arrives, one message after the other. */
export class Receiver {
  readonly side: MigrationSide
  /** Why the target's SVSM took something not; null as long as it took all. */
  refusal: string | null = null
  /** From the target's time to the source's: set once both are ready. */
  #shiftNs = 0
  #nowNs = 0

  constructor(side: MigrationSide) {
    this.side = side
  }

  *offer(): Generator<void, Uint8Array> {
    const reply = yield* this.side.command("hello", MIGRATION_ROLE.TARGET)
    if (reply.result !== SVSM_RESULT.SUCCESS)
      throw new RunFailed({ why: `the target's hello is answered by ${migrationResultName(reply.result)}` })
    return this.side.take(reply.rcx)
  }

  /** The source's offer. It is refused or taken. */
  *greet(offer: Uint8Array): Generator<void, void> {
    this.side.put(offer)
    const reply = yield* this.side.command("peer", offer.length)
    this.#nowNs = reply.ns
    this.#refuse(reply.result)
  }

  /** The target waits when the source begins, at this time of the source's. */
  align(sourceNs: number): void {
    this.#shiftNs = sourceNs - this.#nowNs
  }

  /** @returns when the message had been taken, in the source's time */
  *take({ kind, bytes, arrivesNs }: Message): Generator<void, number> {
    if (this.refusal === null) {
      this.side.put(bytes)
      const waitNs = Math.max(0, arrivesNs - this.#shiftNs - this.#nowNs)
      const reply = yield* this.side.command(kind === "pages" ? "import" : "import-state", bytes.length, waitNs)
      this.#nowNs = reply.ns
      this.#refuse(reply.result)
    }
    return this.#nowNs + this.#shiftNs
  }

  /** The guest goes on here, until it has done all its work. */
  *resume(): Generator<void, { readonly firstNs: number; readonly digest: string }> {
    const { machine, service } = this.side
    const digest = stateDigest(machine, service.migration)
    const reply = yield* this.side.command("resume")
    if (reply.result !== SVSM_RESULT.SUCCESS)
      throw new RunFailed({ why: `the target's resume is answered by ${migrationResultName(reply.result)}` })
    yield* this.side.finish()
    return { firstNs: Math.min(...this.side.resumedNs) + this.#shiftNs, digest }
  }

  #refuse(result: number): void {
    if (result !== SVSM_RESULT.SUCCESS) this.refusal ??= migrationResultName(result)
  }
}
