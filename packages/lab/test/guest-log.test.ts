import { createHash } from "node:crypto"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { GuestLog } from "../src/GuestLog.ts"

const VCPUS = 3

describe("the guest's log", () => {
  it("is a digest of each call and its result, however many there are", () => {
    const call = fc.tuple(fc.nat(VCPUS - 1), fc.nat(9), fc.constantFrom(0, 0x8000_1010))
    fc.assert(
      fc.property(fc.array(call, { maxLength: 1_500, size: "max" }), (calls) => {
        const log = new GuestLog(VCPUS)
        const texts = new Array<string>(VCPUS).fill("")
        for (const [apicId, kind, result] of calls) {
          log.called(apicId, kind, result)
          texts[apicId] += `${kind}:${result};`
        }
        const all = createHash("sha256")
        for (const text of texts) all.update(createHash("sha256").update(text).digest())
        expect(log.digest()).toBe(all.digest("hex"))
      }),
      { numRuns: 30 }
    )
  })
})
