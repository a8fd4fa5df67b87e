import { createHmac } from "node:crypto"
import { bufferReply, bytes, defineCall, defineService, guestBuffer, guestStruct, refuse } from "@vmpl-lab/lab"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"

class NotYourLevel extends Data.TaggedError("NotYourLevel") {}

/** What a derived key is bound to beside the guest: policy and measurement. */
const FIELDS = 0b1001

/**
 * Keys for what a guest wants to seal. Each is derived from a key that the AMD-SP gives to this guest on this chip alone,
 * so that the same guest gets the same ones after its next boot. A level gets those of its own and of the levels below.
 */
export default defineService({
  name: "derived-keys",
  protocol: 0x4000_0002,
  version: { min: 1, max: 1 },
  errors: { NotYourLevel: 0, FirmwareRefused: 1, SecretsFull: 2 },
  calls: {
    derive: defineCall({
      call: 0,
      uses: ["secrets", "firmware"],
      costNs: 2_000,
      request: {
        wanted: guestStruct("rcx", { level: "u32", purpose: bytes(12) }),
        out: guestBuffer("rdx", { size: 32, align: 8 })
      },
      reply: { out: bufferReply("out", { key: bytes(32) }) },
      example: { wanted: { level: 2, purpose: new TextEncoder().encode("disk") } },
      handler: ({ wanted: { level, purpose } }, { secrets, firmware, vmpl }) =>
        Effect.gen(function* () {
          if (level < vmpl) return yield* new NotYourLevel()
          let root = yield* secrets.get("root")
          if (root === undefined) {
            root = yield* firmware.key({ root: "chip", fields: FIELDS, vmpl: 0 })
            yield* secrets.set("root", root)
          }
          const key = createHmac("sha256", root).update(Uint8Array.of(level)).update(purpose).digest()
          return { out: { key: new Uint8Array(key) } }
        })
    }),
    prove: defineCall({
      call: 1,
      uses: ["firmware"],
      costNs: 500,
      request: {
        nonce: guestStruct("rcx", { bytes: bytes(64) }),
        out: guestBuffer("rdx", { size: { register: "r8", min: 0x4a0, max: 4096 }, align: 8 })
      },
      reply: {},
      handler: ({ nonce, out }, { firmware }) =>
        Effect.gen(function* () {
          const report = yield* firmware.report(nonce.bytes)
          if (report.length > out.size) return yield* refuse("INVALID_PARAMETER")
          yield* out.write(report)
          return {}
        })
    })
  }
})
