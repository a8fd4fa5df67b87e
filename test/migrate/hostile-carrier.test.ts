import { type Message, type MigrateOptions, MigrationFlow, RunFailed } from "@vmpl-lab/lab"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { recordSize } from "@vmpl-lab/svsm"
import { describe, expect, it } from "vitest"
import { migrated, outcomeOf, smallMigration } from "../support/migration.ts"

const PAGE_RECORD = recordSize(4096)

const flipped = (bytes: Uint8Array, at: number, bit = 0): Uint8Array => {
  const copy = bytes.slice()
  copy[at]! ^= 1 << bit
  return copy
}

/** What is done to the message with this number, of those with pages. */
const onMessage = (number: number, change: (message: Message) => ReadonlyArray<Message>): MigrateOptions["carries"] => {
  let seen = 0
  return (message) => (message.kind === "pages" && ++seen === number ? change(message) : [message])
}

const onState =
  (change: (message: Message) => ReadonlyArray<Message>): MigrateOptions["carries"] =>
  (message) =>
    message.kind === "state" ? change(message) : [message]

/** Two records of a message change places. */
const swapped = ({ bytes, ...rest }: Message): ReadonlyArray<Message> => [
  {
    ...rest,
    bytes: Buffer.concat([
      bytes.subarray(PAGE_RECORD, 2 * PAGE_RECORD),
      bytes.subarray(0, PAGE_RECORD),
      bytes.subarray(2 * PAGE_RECORD)
    ])
  }
]

/** Messages of another guest on another way, under another key. */
const others = (): ReadonlyArray<Message> => {
  const messages: Array<Message> = []
  migrated(
    smallMigration({
      seed: 99,
      carries: (message) => {
        messages.push(message)
        return [message]
      }
    })
  )
  return messages
}

const withBytes =
  (change: (bytes: Uint8Array) => Uint8Array) =>
  (message: Message): ReadonlyArray<Message> => [{ ...message, bytes: change(message.bytes) }]

const PAGES: ReadonlyArray<
  readonly [name: string, change: (message: Message) => ReadonlyArray<Message>, result: string]
> = [
  ["brings it twice", (message) => [message, message], "OUT_OF_SEQUENCE"],
  ["changes the order of two records", swapped, "OUT_OF_SEQUENCE"],
  ["changes a bit of the ciphertext", withBytes((bytes) => flipped(bytes, 100)), "NOT_AUTHENTIC"],
  ["changes a bit of the tag", withBytes((bytes) => flipped(bytes, PAGE_RECORD - 1, 7)), "NOT_AUTHENTIC"],
  ["changes the page's address", withBytes((bytes) => flipped(bytes, 17, 4)), "NOT_AUTHENTIC"],
  ["changes the page's rights", withBytes((bytes) => flipped(bytes, 6)), "NOT_AUTHENTIC"],
  ["changes the kind of record", withBytes((bytes) => flipped(bytes, 4, 1)), "NOT_AUTHENTIC"],
  ["changes the number", withBytes((bytes) => flipped(bytes, 8)), "OUT_OF_SEQUENCE"],
  ["changes the length", withBytes((bytes) => flipped(bytes, 27, 7)), "MALFORMED"],
  ["brings another thing", withBytes((bytes) => new Uint8Array(bytes.length).fill(0x5a)), "MALFORMED"],
  ["cuts it short", withBytes((bytes) => bytes.slice(0, bytes.length - 1)), "MALFORMED"],
  [
    "gives it to another guest's target",
    () =>
      others()
        .filter(({ kind }) => kind === "pages")
        .slice(0, 1),
    "NOT_AUTHENTIC"
  ]
]

describe("a carrier of pages", () => {
  it.each(PAGES)("that %s is refused, and the guest goes on where it is", (_name, change, result) => {
    const run = migrated(smallMigration({ carries: onMessage(1, change)! }))
    expect(run.refusal).toBe(result)
    expect(run.targetDigest).toBeNull()
    expect(run.goesOn).toBe("source")
  })

  it("that drops a message is refused with the next one", () => {
    const run = migrated(smallMigration({ carries: onMessage(1, () => [])! }))
    expect(run).toMatchObject({ refusal: "OUT_OF_SEQUENCE", goesOn: "source" })
  })

  it("that holds a message back and brings it later is refused", () => {
    let held: Message | null = null
    const run = migrated(
      smallMigration({
        carries: (message) => {
          if (held === null) {
            held = message
            return []
          }
          return [message, held]
        }
      })
    )
    expect(run).toMatchObject({ refusal: "OUT_OF_SEQUENCE", goesOn: "source" })
  })

  it("that drops the last pages is refused when the state comes: by then the guest is nobody's", () => {
    let pages = 0
    migrated(
      smallMigration({
        carries: (message) => {
          if (message.kind === "pages") pages++
          return [message]
        }
      })
    )
    const run = migrated(smallMigration({ carries: onMessage(pages, () => [])! }))
    expect(run).toMatchObject({ refusal: "OUT_OF_SEQUENCE", goesOn: "nowhere" })
  })
})

describe("a carrier of the guest's state", () => {
  it.each([
    ["changes a bit", withBytes((bytes) => flipped(bytes, 200)), "NOT_AUTHENTIC"],
    ["leaves the VMSAs out", withBytes((bytes) => bytes.slice(PAGE_RECORD * 2)), "OUT_OF_SEQUENCE"],
    ["leaves the end out", withBytes((bytes) => bytes.slice(0, PAGE_RECORD * 2)), "MALFORMED"],
    [
      "leaves one of the VMSAs out",
      withBytes((bytes) => Buffer.concat([bytes.subarray(0, PAGE_RECORD), bytes.subarray(2 * PAGE_RECORD)])),
      "OUT_OF_SEQUENCE"
    ]
  ])("that %s is refused, and the guest is in no two places", (_name, change, result) => {
    const run = migrated(smallMigration({ carries: onState(change)! }))
    expect(run).toMatchObject({ refusal: result, goesOn: "nowhere" })
  })
})

describe("a carrier of the offers for a key", () => {
  const introduced = (side: "source" | "target", change: (offer: Uint8Array) => Uint8Array) =>
    smallMigration({ introduces: (offer, whose) => (whose === side ? change(offer) : offer) })
  const PUBLIC_KEY = 12

  it.each([
    ["the public key", (offer: Uint8Array) => flipped(offer, PUBLIC_KEY + 40)],
    ["the role", (offer: Uint8Array) => flipped(offer, 0)],
    ["the report", (offer: Uint8Array) => flipped(offer, PUBLIC_KEY + 97 + 0x90)],
    ["a certificate", (offer: Uint8Array) => flipped(offer, offer.length - 1)],
    ["the size of the report", (offer: Uint8Array) => flipped(offer, 4)],
    ["all of it", (offer: Uint8Array) => new Uint8Array(offer.length)]
  ])("that changes %s is refused by either side", (_name, change) => {
    expect(() => migrated(introduced("target", change))).toThrow(RunFailed)
    expect(() => migrated(introduced("target", change))).toThrow(/UNTRUSTED_PEER/)
    expect(migrated(introduced("source", change))).toMatchObject({ refusal: "UNTRUSTED_PEER", goesOn: "source" })
  })

  it("cannot give a side its own offer back", () => {
    let own = new Uint8Array(0)
    const options = smallMigration({
      introduces: (offer, side) => {
        if (side === "target") own = Uint8Array.from(offer)
        return side === "source" ? own : offer
      }
    })
    expect(migrated(options)).toMatchObject({ refusal: "UNTRUSTED_PEER", goesOn: "source" })
  })
})

describe("a host that tracks and hides a page", () => {
  const hiding = (rehash: boolean) => {
    const hidden = new Set<number>()
    const options = smallMigration({
      tracking: "nested-page-table",
      rehash,
      tells: (gfns) => {
        // Data pages are above 4 GiB: the first that turns up is never told again.
        const data = gfns.find((gfn) => gfn >= 0x10_0000)
        if (hidden.size === 0 && data !== undefined) hidden.add(data)
        return gfns.filter((gfn) => !hidden.has(gfn))
      }
    })
    return { run: migrated(options), hidden }
  }

  it("is found out by the hash of all memory", () => {
    const { run, hidden } = hiding(true)
    expect(hidden.size).toBe(1)
    expect(run).toMatchObject({ refusal: "STALE_MEMORY", goesOn: "nowhere" })
  })

  it("has its way where it is believed: the guest goes on with an old page", () => {
    const { run } = hiding(false)
    expect(run.refusal).toBeNull()
    expect(run.goesOn).toBe("target")
    expect(run.targetDigest).not.toBe(run.sourceDigest)
  })

  it("gains nothing by naming pages that are clean, are not the guest's, or are nowhere", () => {
    const options = smallMigration({ tracking: "nested-page-table" })
    const flow = new MigrationFlow({
      ...options,
      tells: (gfns) => {
        const { parameters } = flow.sides[0].machine.svsm
        const svsm = parameters.svsm.gpa / PAGE_SIZE
        const strangers = [0, svsm, svsm + 3, parameters.secretsGpa / PAGE_SIZE, 0x7_ffff_ffff, 2 ** 52 - 1]
        return [...gfns, ...strangers, ...Array.from({ length: options.pages }, (_, i) => 0x10_0000 + i)]
      }
    })
    const run = outcomeOf(flow.run())
    expect(run).toMatchObject({ refusal: null, goesOn: "target" })
    expect(run.targetDigest).toBe(run.sourceDigest)
    expect(run.lastPages).toBeGreaterThanOrEqual(options.pages)
  })
})
