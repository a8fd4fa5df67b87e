import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { ekPublic, guestTpm, responseCode, serveProxy, serviceGuest, swtpm } from "@vmpl-lab/lab"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { profile } from "../support/guestRun.ts"
import { freePorts, hasSwtpm, hasTools, tool } from "./Tools.ts"

const GET_RANDOM = Uint8Array.from([0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8])
const TPM_RC_INITIALIZE = 0x100

describe.skipIf(!hasSwtpm)("the endorsement key", () => {
  it("is an RSA-2048 key of the template, the same each time, and leaves the TPM waiting for its start-up", async () => {
    const [first, second, code] = await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const tpm = yield* swtpm()
          const keys = [yield* ekPublic(tpm), yield* ekPublic(tpm)] as const
          return [...keys, responseCode(yield* tpm.send(GET_RANDOM))] as const
        })
      )
    )
    expect([...first.subarray(0, 8)]).toEqual([0, 1, 0, 0x0b, 0, 3, 0, 0xb2])
    expect(first.length).toBe(2 + 2 + 4 + 34 + 14 + 2 + 256)
    expect(second).toEqual(first)
    expect(code).toBe(TPM_RC_INITIALIZE)
  })

  it.skipIf(!hasTools)("is the one that a client of the guest's TPM makes", async () => {
    const folder = mkdtempSync(join(tmpdir(), "vmpl-lab-tools-"))
    const port = await freePorts()
    try {
      const key = await Effect.runPromise(
        Effect.scoped(
          Effect.gen(function* () {
            const tpm = yield* swtpm()
            const key = yield* ekPublic(tpm)
            const launched = { ...serviceGuest(STRATEGIES[0]!).launched, profile, seed: 1 }
            const { send } = yield* guestTpm(tpm, launched)
            yield* Effect.raceFirst(
              serveProxy({
                address: { host: "127.0.0.1", port },
                send: (command, locality) => Effect.map(send(command, locality), ({ response }) => response),
                clients: undefined,
                onListening: Effect.void
              }),
              Effect.delay(
                Effect.promise(() => tool(port, folder, "tpm2_createek -c ek.ctx -G rsa -u ek.pub")),
                "200 millis"
              )
            )
            return key
          })
        )
      )
      // Behind the size of a TPM2B_PUBLIC.
      expect(new Uint8Array(readFileSync(join(folder, "ek.pub"))).subarray(2)).toEqual(key)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})
