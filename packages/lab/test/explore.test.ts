// @section 6
import { PAGE_2M, PAGE_4K, type Rmp, type RmpEntry } from "@vmpl-lab/rmp"
import { describe, expect, it } from "vitest"
import { fullCheck, PROPERTIES, type PropertyName, violationOf } from "../src/explore/Properties.ts"
import { SMALL_MACHINE } from "../src/explore/SmallMachine.ts"
import { decodeState, encodeState } from "../src/explore/StateKey.ts"
import { brokenByChange } from "../src/explore/Transitions.ts"
import { type Action, TraceMachine } from "../src/trace/index.ts"

const FULL = 0xf
const guestPage = (fields: Partial<RmpEntry> = {}): Partial<RmpEntry> => ({
  assigned: true,
  asid: 1,
  gfn: 0,
  validated: true,
  perms: [FULL, 0, 0, 0],
  ...fields
})

/** The property that a state breaks, named by its key. */
const broken = (change: (rmp: Rmp) => void, history: number): string | null => {
  const machine = new TraceMachine(SMALL_MACHINE)
  change(machine.rmp)
  const violation = violationOf(machine, history, fullCheck(machine), false)
  return violation === null ? null : violation.property
}

describe("properties of a state", () => {
  const cases: ReadonlyArray<readonly [PropertyName | null, string, (rmp: Rmp) => void, number]> = [
    [null, "nothing assigned", () => {}, 0],
    [null, "a page that its guest has validated", (rmp) => rmp.firmwareSet(1, guestPage()), 0x1],
    [
      null,
      "the same GPA of two guests",
      (rmp) => {
        rmp.firmwareSet(1, guestPage())
        rmp.firmwareSet(2, guestPage({ asid: 2 }))
      },
      0x11
    ],
    ["validated", "a page whose guest never validated it", (rmp) => rmp.firmwareSet(1, guestPage()), 0x2],
    ["validated", "the other guest's history does not count", (rmp) => rmp.firmwareSet(1, guestPage({ asid: 2 })), 0x1],
    [
      "onePlace",
      "two pages for one GPA",
      (rmp) => {
        rmp.firmwareSet(1, guestPage())
        rmp.firmwareSet(2, guestPage())
      },
      0x1
    ],
    [
      "owned2M",
      "an owner inside a 2 MiB page",
      (rmp) => {
        rmp.firmwareSet(0, guestPage({ size: PAGE_2M }))
        rmp.firmwareSet(2, guestPage())
      },
      0xf
    ],
    ["validOwner", "validated, but nobody's", (rmp) => rmp.firmwareSet(1, { assigned: true, validated: true }), 0xff],
    ["vmpl0", "VMPL0 without a right", (rmp) => rmp.firmwareSet(1, guestPage({ perms: [7, 0, 0, 0] })), 0x1]
  ]
  it.each(cases)("%s: %s", (name, _, change, history) => {
    expect(broken(change, history)).toBe(name === null ? null : PROPERTIES[name])
  })

  it("a page that one access reaches and a wrong check lets others reach too", () => {
    const machine = new TraceMachine(SMALL_MACHINE)
    machine.rmp.firmwareSet(1, guestPage({ perms: [FULL, FULL, 0, 0] }))
    const passing = (accept: (action: Extract<Action, { op: "access" }>) => boolean) => {
      const check = fullCheck(machine)
      return violationOf(machine, 0xff, (action) => check(action) || accept(action), true)?.property
    }
    expect(passing((action) => action.by === "host")).toBe(PROPERTIES.nobodyElseWrites)
    expect(passing((action) => action.by === "guest" && !action.cbit)).toBe(PROPERTIES.nobodyElseWrites)
    expect(
      passing((action) => action.by === "guest" && action.cbit && action.asid === 2 && action.npt?.pfn === 1)
    ).toBe(PROPERTIES.oneOwner)
    expect(passing((action) => action.by === "guest" && action.cbit && action.gfn === 3 && action.npt?.pfn === 1)).toBe(
      PROPERTIES.oneOwner
    )
    const strict = violationOf(
      machine,
      0xff,
      (action) =>
        action.by === "guest" && action.npt?.size === PAGE_2M && action.gfn === 1 && action.cbit && action.asid === 1,
      false
    )
    expect(strict?.property).toBe(PROPERTIES.translation)
    machine.rmp.firmwareSet(1, { perms: [FULL, 0, 0, 0] })
    expect(
      passing(
        (action) =>
          action.by === "guest" && action.vmpl === 1 && action.gfn === 0 && action.npt?.pfn === 1 && action.asid === 1
      )
    ).toBe(PROPERTIES.granted)
    machine.rmp.firmwareSet(1, { immutable: true })
    expect(
      passing(
        (action) =>
          action.by === "guest" && action.vmpl === 0 && action.gfn === 0 && action.npt?.pfn === 1 && action.asid === 1
      )
    ).toBe(PROPERTIES.firmware)
  })
})

describe("properties of a change", () => {
  const words = (change: (rmp: Rmp) => void): Int32Array => {
    const { rmp } = new TraceMachine(SMALL_MACHINE)
    change(rmp)
    const out = new Int32Array(rmp.snapshotWords)
    rmp.saveEntries(out)
    return out
  }
  const valid = words((rmp) => rmp.firmwareSet(1, guestPage()))
  const moved = words((rmp) => rmp.firmwareSet(1, guestPage({ gfn: 1 })))
  const granted = words((rmp) => rmp.firmwareSet(1, guestPage({ perms: [FULL, FULL, 0, 0] })))
  const weakened = words((rmp) => rmp.firmwareSet(1, guestPage({ perms: [0, FULL, 0, 0] })))
  const blank = words(() => {})
  const used = words((rmp) => {
    rmp.firmwareSet(1, guestPage({ vmsa: true }))
    rmp.markInUse(1)
  })
  const unused = words((rmp) => rmp.firmwareSet(1, guestPage({ vmsa: true })))
  const large = words((rmp) => rmp.firmwareSet(0, guestPage({ size: PAGE_2M })))
  const smashed = words((rmp) => {
    for (let page = 0; page < 4; page++) rmp.firmwareSet(page, guestPage({ gfn: page }))
  })
  const crooked = words((rmp) => {
    for (let page = 0; page < 4; page++) rmp.firmwareSet(page, guestPage({ gfn: page ^ 1 }))
  })

  const at = { asid: 1, gfn: 0, npt: { pfn: 1, size: PAGE_4K } } as const
  const update: Action = { op: "rmpupdate", pfn: 1, assigned: true, size: PAGE_4K, immutable: false, gfn: 1, asid: 1 }
  const adjust = (vmpl: number): Action => ({
    op: "rmpadjust",
    vmpl,
    ...at,
    size: PAGE_4K,
    targetVmpl: 1,
    mask: FULL,
    vmsa: false
  })
  const psmash: Action = { op: "psmash", pfn: 0 }
  const cases: ReadonlyArray<readonly [PropertyName | null, Action, Int32Array, Int32Array]> = [
    [null, update, valid, blank],
    ["hostKeepsContents", update, valid, moved],
    ["hostKeepsContents", update, blank, valid],
    [null, adjust(0), valid, granted],
    ["vmpl1ChangesNothing", adjust(1), valid, granted],
    ["vmpl1ChangesNothing", adjust(0), valid, weakened],
    ["vmsaInUse", update, used, blank],
    ["vmsaInUse", adjust(0), used, unused],
    [null, { op: "vmexit", pfn: 1 }, used, unused],
    [null, psmash, large, smashed],
    ["hostKeepsContents", psmash, large, crooked]
  ]
  it.each(cases)("%s: %o", (name, action, before, after) => {
    expect(brokenByChange(action, before, after)).toBe(name === null ? null : PROPERTIES[name])
  })
})

describe("a state as a number", () => {
  it("comes back as it was, whatever the entries", () => {
    const machine = new TraceMachine(SMALL_MACHINE)
    const { rmp } = machine
    const entries: ReadonlyArray<Partial<RmpEntry>> = [
      {},
      guestPage({ asid: 2, gfn: 3, immutable: true }),
      guestPage({ vmsa: true, inUse: true, perms: [FULL, FULL, 0, 0] }),
      guestPage({ validated: false, gfn: 2 })
    ]
    const before = new Int32Array(rmp.snapshotWords)
    const after = new Int32Array(rmp.snapshotWords)
    const keys = new Set<number>()
    for (let shift = 0; shift < 4; shift++) {
      for (let page = 0; page < 4; page++) {
        const blank = {
          assigned: false,
          size: PAGE_4K,
          immutable: false,
          gfn: 0,
          asid: 0,
          validated: false,
          vmsa: false,
          inUse: false,
          perms: [0, 0, 0, 0]
        } as const
        rmp.firmwareSet(page, { ...blank, ...entries[(page + shift) % 4] })
      }
      rmp.saveEntries(before)
      for (const history of [0, 1, 0x81, 0xff]) {
        const key = encodeState(before, history)
        expect(Number.isSafeInteger(key)).toBe(true)
        expect(decodeState(key, after)).toBe(history)
        expect(after).toEqual(before)
        keys.add(key)
      }
    }
    expect(keys.size).toBe(16)
  })
})
