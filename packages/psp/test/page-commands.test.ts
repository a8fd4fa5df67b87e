// @section 1.6, 1.7
import { PAGE_2M, PAGE_4K, type PageState, Rmp } from "@vmpl-lab/rmp"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type PageCommand, PageCommands, type Status } from "../src/index.ts"

const ASID = 3
const CONTEXT = 8
const OTHER_CONTEXT = 9
const METADATA = 4
const P = 0x10
const Q = 0x11
const IMAGE = 0x20
/** First page of another 2 MiB region. */
const LARGE = 0x200

const make = (pagesPer2M = 512) => {
  const rmp = new Rmp({ pages: 0x1000, pagesPer2M })
  return { rmp, psp: new PageCommands(rmp) }
}

const firmwarePage = (rmp: Rmp, pfn: number, size: 0 | 1 = PAGE_4K): void => {
  expect(rmp.rmpupdate(pfn, true, size, true, 0, 0)).toBe(0)
}

/** Brings a page to a state the way software would, as far as it can. */
const reach = (rmp: Rmp, psp: PageCommands, pfn: number, state: PageState, gfn = pfn): void => {
  switch (state) {
    case "Firmware":
      firmwarePage(rmp, pfn)
      break
    case "Context":
      firmwarePage(rmp, pfn)
      psp.execute({ command: "GCTX_CREATE", pfn })
      break
    case "Metadata":
      firmwarePage(rmp, pfn)
      psp.execute({ command: "MD_INIT", pfn, contextPfn: CONTEXT })
      break
    case "HV-Fixed":
      firmwarePage(rmp, pfn)
      psp.execute({ command: "PAGE_SET_STATE", pfn })
      break
    case "Reclaim":
      firmwarePage(rmp, pfn)
      psp.execute({ command: "PAGE_RECLAIM", pfn })
      break
    case "Firmware-IOMMU":
      rmp.firmwareSet(pfn, { assigned: true, immutable: true, gfn: 1 })
      break
    case "Pre-Guest":
      rmp.rmpupdate(pfn, true, PAGE_4K, true, gfn, ASID)
      break
    case "Guest-Invalid":
    case "Guest-Valid":
    case "Pre-Swap":
      rmp.rmpupdate(pfn, true, PAGE_4K, false, gfn, ASID)
      if (state !== "Guest-Invalid") rmp.pvalidate(ASID, 0, gfn, pfn, PAGE_4K, PAGE_4K, true)
      if (state === "Pre-Swap") rmp.rmpupdate(pfn, true, PAGE_4K, true, gfn, ASID)
  }
  expect(rmp.stateOf(pfn)).toBe(state)
}

const STATES: ReadonlyArray<PageState> = [
  "Hypervisor",
  "HV-Fixed",
  "Firmware",
  "Firmware-IOMMU",
  "Reclaim",
  "Context",
  "Metadata",
  "Pre-Guest",
  "Pre-Swap",
  "Guest-Invalid",
  "Guest-Valid"
]

const contents = (rmp: Rmp): string => {
  const parts: Array<string> = []
  rmp.digestInto((bytes) => parts.push(Buffer.from(bytes).toString("hex")))
  return parts.join("")
}

describe("one-page commands, from every state", () => {
  const cases: ReadonlyArray<
    readonly [
      command: Extract<PageCommand, { pfn: number }>["command"],
      from: Partial<Record<PageState, PageState>>,
      refusal: Status
    ]
  > = [
    ["GCTX_CREATE", { Firmware: "Context" }, "INVALID_PAGE_STATE"],
    ["DECOMMISSION", { Context: "Firmware" }, "INVALID_GUEST"],
    ["PAGE_SET_STATE", { Firmware: "HV-Fixed" }, "INVALID_PAGE_STATE"],
    [
      "PAGE_RECLAIM",
      {
        Firmware: "Reclaim",
        Metadata: "Reclaim",
        "Pre-Guest": "Guest-Invalid",
        "Pre-Swap": "Guest-Valid",
        Hypervisor: "Hypervisor",
        Reclaim: "Reclaim",
        "Guest-Invalid": "Guest-Invalid",
        "Guest-Valid": "Guest-Valid"
      },
      "INVALID_PAGE_STATE"
    ]
  ]
  for (const [command, to, refusal] of cases)
    it.each(STATES)(`${command} of %s`, (state) => {
      const { rmp, psp } = make()
      reach(rmp, psp, CONTEXT, "Context")
      reach(rmp, psp, P, state)
      const before = contents(rmp)
      const status = psp.execute({ command, pfn: P } as PageCommand)
      expect([status, rmp.stateOf(P)]).toEqual(to[state] === undefined ? [refusal, state] : ["SUCCESS", to[state]])
      if (to[state] === undefined) expect(contents(rmp)).toBe(before)
    })

  it("a page that is not covered is refused by all", () => {
    const { psp } = make()
    const status = (command: string) => psp.execute({ command, pfn: 0x1000 } as PageCommand)
    expect(["GCTX_CREATE", "DECOMMISSION", "PAGE_SET_STATE", "PAGE_RECLAIM", "PAGE_UNSMASH"].map(status)).toEqual([
      "INVALID_PAGE_STATE",
      "INVALID_GUEST",
      "INVALID_PAGE_STATE",
      "INVALID_PAGE_STATE",
      "INVALID_PAGE_STATE"
    ])
  })

  it("a context takes 4 KiB; other commands take 2 MiB pages at their first page only", () => {
    const { rmp, psp } = make()
    firmwarePage(rmp, LARGE, PAGE_2M)
    expect(psp.execute({ command: "GCTX_CREATE", pfn: LARGE })).toBe("INVALID_PAGE_SIZE")
    expect(psp.execute({ command: "PAGE_RECLAIM", pfn: LARGE + 1 })).toBe("INVALID_ADDRESS")
    expect(psp.execute({ command: "PAGE_SET_STATE", pfn: LARGE + 1 })).toBe("INVALID_ADDRESS")
    expect(psp.execute({ command: "PAGE_SET_STATE", pfn: LARGE })).toBe("SUCCESS")
    expect([rmp.stateOf(LARGE), rmp.stateOf(LARGE + 511), rmp.entry(LARGE + 5).assigned]).toEqual([
      "HV-Fixed",
      "HV-Fixed",
      false
    ])
    firmwarePage(rmp, LARGE + 512, PAGE_2M)
    expect(psp.execute({ command: "PAGE_RECLAIM", pfn: LARGE + 512 })).toBe("SUCCESS")
    expect(rmp.stateOf(LARGE + 700)).toBe("Reclaim")
    expect(rmp.rmpupdate(LARGE + 512, false, PAGE_2M, false, 0, 0)).toBe(0)
  })

  it("a reclaimed guest page keeps what the guest had", () => {
    const { rmp, psp } = make()
    reach(rmp, psp, P, "Guest-Valid")
    rmp.rmpadjust(ASID, 0, P, P, PAGE_4K, PAGE_4K, 2, 0x3, true)
    rmp.rmpupdate(P, true, PAGE_4K, true, P, ASID)
    const { immutable: _, ...held } = rmp.entry(P)
    psp.execute({ command: "PAGE_RECLAIM", pfn: P })
    expect(rmp.entry(P)).toEqual({ ...held, immutable: false })
  })
})

describe("LAUNCH_UPDATE", () => {
  const command = {
    command: "LAUNCH_UPDATE",
    pfn: P,
    pageType: 1,
    asid: ASID,
    size: PAGE_4K,
    masks: [1, 3, 0xf]
  } as const
  const launch = (change: Partial<PageCommand> = {}, prepare?: (rmp: Rmp) => void) => {
    const { rmp, psp } = make()
    reach(rmp, psp, P, "Pre-Guest")
    prepare?.(rmp)
    return { rmp, status: psp.execute({ ...command, ...change } as PageCommand) }
  }

  it("hands the page over: masks of VMPL1 to 3, Validated, mutable; VMSA for type 2", () => {
    const { rmp, status } = launch()
    expect([status, rmp.stateOf(P), rmp.entry(P).vmsa]).toEqual(["SUCCESS", "Guest-Valid", false])
    expect(rmp.entry(P).perms).toEqual([0xf, 1, 3, 0xf])
    expect(launch({ pageType: 2 }).rmp.entry(P).vmsa).toBe(true)
  })

  it("checks state, size, alignment, type, size for the type, owner, in this order", () => {
    expect(launch({ pfn: Q, size: PAGE_2M, pageType: 9, asid: 9 }).status).toBe("INVALID_PAGE_STATE")
    expect(launch({ size: PAGE_2M, pageType: 9, asid: 9 }).status).toBe("INVALID_PAGE_SIZE")
    const large = (rmp: Rmp) => void rmp.rmpupdate(LARGE, true, PAGE_2M, true, 512, ASID)
    expect(launch({ pfn: LARGE + 1, size: PAGE_2M, pageType: 9, asid: 9 }, large).status).toBe("INVALID_ADDRESS")
    expect(launch({ pfn: LARGE, size: PAGE_2M, pageType: 9, asid: 9 }, large).status).toBe("INVALID_PARAM")
    for (const pageType of [2, 5, 6])
      expect(launch({ pfn: LARGE, size: PAGE_2M, pageType, asid: 9 }, large).status).toBe("INVALID_PAGE_SIZE")
    expect(launch({ pfn: LARGE, size: PAGE_2M, asid: 9 }, large).status).toBe("INVALID_PAGE_OWNER")
    for (const pageType of [1, 3, 4])
      expect(launch({ pfn: LARGE, size: PAGE_2M, pageType }, large).status).toBe("SUCCESS")
  })
})

describe("PAGE_UNSMASH", () => {
  const smashed = (change?: (rmp: Rmp) => void) => {
    const { rmp, psp } = make()
    for (let i = 0; i < 512; i++) {
      rmp.rmpupdate(LARGE + i, true, PAGE_4K, false, 0x400 + i, ASID)
      rmp.pvalidate(ASID, 0, 0x400 + i, LARGE + i, PAGE_4K, PAGE_4K, true)
      rmp.rmpupdate(LARGE + i, true, PAGE_4K, true, 0x400 + i, ASID)
    }
    change?.(rmp)
    return { rmp, psp, status: psp.execute({ command: "PAGE_UNSMASH", pfn: LARGE }) }
  }

  it("joins 512 pages; a table that was never smashed looks the same", () => {
    const { rmp, status } = smashed()
    expect([status, rmp.stateOf(LARGE), rmp.stateOf(LARGE + 77)]).toEqual(["SUCCESS", "Pre-Swap", "Pre-Swap"])
    expect(rmp.entry(LARGE)).toMatchObject({ size: PAGE_2M, gfn: 0x400, asid: ASID, validated: true })
    expect(rmp.entry(LARGE + 1)).toEqual({
      assigned: true,
      size: 0,
      immutable: false,
      gfn: 0,
      asid: 0,
      validated: false,
      vmsa: false,
      inUse: false,
      perms: [0, 0, 0, 0]
    })
    const direct = make().rmp
    direct.rmpupdate(LARGE, true, PAGE_2M, false, 0x400, ASID)
    direct.pvalidate(ASID, 0, 0x400, LARGE, PAGE_2M, PAGE_2M, true)
    direct.rmpupdate(LARGE, true, PAGE_2M, true, 0x400, ASID)
    expect(contents(rmp)).toBe(contents(direct))
  })

  const bad: ReadonlyArray<readonly [string, (rmp: Rmp) => void]> = [
    ["one page mutable", (rmp) => rmp.firmwareSet(LARGE + 5, { immutable: false })],
    ["one page a VMSA", (rmp) => rmp.firmwareSet(LARGE + 5, { vmsa: true })],
    ["the first page a VMSA", (rmp) => rmp.firmwareSet(LARGE, { vmsa: true })],
    ["one page not validated", (rmp) => rmp.firmwareSet(LARGE + 511, { validated: false })],
    ["one page of another guest", (rmp) => rmp.firmwareSet(LARGE + 5, { asid: 9 })],
    [
      "no guest",
      (rmp) => {
        for (let i = 0; i < 512; i++) rmp.firmwareSet(LARGE + i, { asid: 0, validated: false })
      }
    ],
    ["one mask unlike", (rmp) => rmp.firmwareSet(LARGE + 5, { perms: [0xf, 1, 0, 0] })],
    ["a GPA out of order", (rmp) => rmp.firmwareSet(LARGE + 5, { gfn: 0x406 })],
    [
      "GPAs not aligned",
      (rmp) => {
        for (let i = 0; i < 512; i++) rmp.firmwareSet(LARGE + i, { gfn: 0x401 + i })
      }
    ]
  ]
  it.each(bad)("refuses: %s", (_, change) => {
    expect(smashed(change).status).toBe("INVALID_PAGE_STATE")
  })

  it("refuses a misaligned address first, and a page that is one already", () => {
    const { psp } = smashed()
    expect(psp.execute({ command: "PAGE_UNSMASH", pfn: LARGE + 1 })).toBe("INVALID_PARAM")
    expect(psp.execute({ command: "PAGE_UNSMASH", pfn: LARGE })).toBe("INVALID_PAGE_STATE")
  })
})

describe("metadata, moving and swapping", () => {
  const ready = () => {
    const { rmp, psp } = make()
    reach(rmp, psp, CONTEXT, "Context")
    reach(rmp, psp, OTHER_CONTEXT, "Context")
    reach(rmp, psp, METADATA, "Metadata")
    const transfer = (
      command: "PAGE_MOVE" | "SWAP_OUT" | "SWAP_IN",
      pfn: number,
      targetPfn: number,
      metadataPfn = METADATA
    ) => psp.execute({ command, pfn, targetPfn, metadataPfn })
    return { rmp, psp, transfer }
  }

  it("MD_INIT names the guest in the entry; the context is checked before the page", () => {
    const { rmp, psp } = ready()
    expect(rmp.entry(METADATA).gfn).toBe(CONTEXT)
    expect(psp.execute({ command: "MD_INIT", pfn: P, contextPfn: Q })).toBe("INVALID_GUEST")
    expect(psp.execute({ command: "MD_INIT", pfn: P, contextPfn: CONTEXT })).toBe("INVALID_PAGE_STATE")
    reach(rmp, psp, P, "Firmware-IOMMU")
    expect(psp.execute({ command: "MD_INIT", pfn: P, contextPfn: CONTEXT })).toBe("INVALID_PAGE_STATE")
  })

  it.each([
    ["Pre-Guest", "Guest-Invalid"],
    ["Pre-Swap", "Guest-Valid"]
  ] as const)("PAGE_MOVE of a %s page makes the destination %s and the source Guest-Invalid", (from, to) => {
    const { rmp, psp, transfer } = ready()
    reach(rmp, psp, P, from, 0x77)
    rmp.firmwareSet(P, { vmsa: true, perms: [0xf, 1, 2, 3] })
    reach(rmp, psp, Q, "Pre-Guest", 0x99)
    expect(transfer("PAGE_MOVE", P, Q)).toBe("SUCCESS")
    expect([rmp.stateOf(P), rmp.stateOf(Q)]).toEqual(["Guest-Invalid", to])
    expect(rmp.entry(Q)).toMatchObject({ gfn: 0x77, vmsa: true, perms: [0xf, 1, 2, 3], asid: ASID })
  })

  it("PAGE_MOVE of a metadata page", () => {
    const { rmp, psp, transfer } = ready()
    reach(rmp, psp, P, "Pre-Swap", 0x77)
    firmwarePage(rmp, IMAGE)
    transfer("SWAP_OUT", P, IMAGE)
    firmwarePage(rmp, Q)
    expect(transfer("PAGE_MOVE", METADATA, Q)).toBe("SUCCESS")
    expect([rmp.stateOf(METADATA), rmp.stateOf(Q), rmp.entry(Q).gfn]).toEqual(["Firmware", "Metadata", CONTEXT])
    // What it recorded moved along.
    expect(transfer("SWAP_IN", IMAGE, P, Q)).toBe("SUCCESS")
    expect(rmp.stateOf(P)).toBe("Pre-Swap")
  })

  it("PAGE_MOVE checks sizes, states, then the owner", () => {
    const { rmp, psp, transfer } = ready()
    rmp.rmpupdate(LARGE, true, PAGE_2M, true, 512, ASID)
    reach(rmp, psp, P, "Pre-Swap")
    expect(transfer("PAGE_MOVE", LARGE, P)).toBe("INVALID_PAGE_SIZE")
    expect(transfer("PAGE_MOVE", P, Q)).toBe("INVALID_PAGE_STATE")
    reach(rmp, psp, Q, "Pre-Swap")
    expect(transfer("PAGE_MOVE", P, Q)).toBe("INVALID_PAGE_STATE")
    rmp.firmwareSet(Q, { validated: false, asid: 9 })
    expect(transfer("PAGE_MOVE", P, Q)).toBe("INVALID_PAGE_OWNER")
    expect(transfer("PAGE_MOVE", METADATA, Q)).toBe("INVALID_PAGE_STATE")
  })

  it("a page goes out and comes in elsewhere with GPA, masks, VMSA and Validated", () => {
    const { rmp, psp, transfer } = ready()
    reach(rmp, psp, P, "Pre-Swap", 0x77)
    rmp.firmwareSet(P, { vmsa: true, perms: [0xf, 1, 2, 3] })
    firmwarePage(rmp, IMAGE)
    expect(transfer("SWAP_OUT", P, IMAGE)).toBe("SUCCESS")
    expect(rmp.stateOf(P)).toBe("Pre-Guest")
    reach(rmp, psp, Q, "Pre-Guest", 0x99)
    expect(transfer("SWAP_IN", IMAGE, Q)).toBe("SUCCESS")
    expect(rmp.stateOf(Q)).toBe("Pre-Swap")
    expect(rmp.entry(Q)).toMatchObject({ gfn: 0x77, vmsa: true, perms: [0xf, 1, 2, 3], validated: true })
  })

  it("a page comes in for the guest that it belonged to only", () => {
    const { rmp, psp, transfer } = ready()
    reach(rmp, psp, P, "Pre-Swap")
    firmwarePage(rmp, IMAGE)
    transfer("SWAP_OUT", P, IMAGE)
    reach(rmp, psp, Q, "Pre-Guest")
    rmp.firmwareSet(Q, { asid: ASID + 1 })
    expect(transfer("SWAP_IN", IMAGE, Q)).toBe("INVALID_PAGE_OWNER")
    expect(transfer("SWAP_IN", IMAGE, P)).toBe("SUCCESS")
  })

  it("F1: an image comes in once, and an old one never", () => {
    const { rmp, psp, transfer } = ready()
    reach(rmp, psp, P, "Pre-Swap")
    firmwarePage(rmp, IMAGE)
    firmwarePage(rmp, IMAGE + 1)
    transfer("SWAP_OUT", P, IMAGE)
    expect(transfer("SWAP_IN", IMAGE, P)).toBe("SUCCESS")
    const before = contents(rmp)
    expect(transfer("SWAP_IN", IMAGE, P)).toBe("INVALID_MDATA_ENTRY")
    expect(contents(rmp)).toBe(before)
    expect(transfer("SWAP_OUT", P, IMAGE + 1)).toBe("SUCCESS")
    expect(transfer("SWAP_IN", IMAGE, P)).toBe("BAD_MEASUREMENT")
    expect(rmp.stateOf(P)).toBe("Pre-Guest")
    expect(transfer("SWAP_IN", IMAGE + 1, P)).toBe("SUCCESS")
  })

  it("a metadata page goes out and comes in, with what it recorded", () => {
    const { rmp, psp, transfer } = ready()
    reach(rmp, psp, 5, "Metadata")
    reach(rmp, psp, P, "Pre-Swap", 0x77)
    firmwarePage(rmp, IMAGE)
    firmwarePage(rmp, IMAGE + 1)
    transfer("SWAP_OUT", P, IMAGE)
    expect(transfer("SWAP_OUT", METADATA, IMAGE + 1, 5)).toBe("SUCCESS")
    expect(rmp.stateOf(METADATA)).toBe("Firmware")
    expect(transfer("SWAP_IN", IMAGE, P)).toBe("INVALID_PAGE_STATE")
    expect(transfer("SWAP_IN", IMAGE + 1, P, 5)).toBe("INVALID_PAGE_STATE")
    expect(transfer("SWAP_IN", IMAGE + 1, METADATA, 5)).toBe("SUCCESS")
    expect(rmp.stateOf(METADATA)).toBe("Metadata")
    expect(transfer("SWAP_IN", IMAGE, P)).toBe("SUCCESS")
  })

  it("SWAP_OUT and SWAP_IN check in the firmware's order", () => {
    const { rmp, psp, transfer } = ready()
    reach(rmp, psp, P, "Pre-Swap")
    firmwarePage(rmp, IMAGE)
    expect(transfer("SWAP_OUT", METADATA, IMAGE)).toBe("INVALID_PARAM")
    expect(transfer("SWAP_OUT", P, METADATA)).toBe("INVALID_PARAM")
    expect(transfer("SWAP_OUT", P, IMAGE, Q)).toBe("INVALID_PAGE_STATE")
    expect(transfer("SWAP_OUT", Q, IMAGE)).toBe("INVALID_PAGE_STATE")
    expect(transfer("SWAP_OUT", P, Q)).toBe("INVALID_PAGE_STATE")
    firmwarePage(rmp, LARGE, PAGE_2M)
    expect(transfer("SWAP_OUT", P, LARGE)).toBe("INVALID_PAGE_SIZE")
    expect(transfer("SWAP_IN", IMAGE, P)).toBe("INVALID_MDATA_ENTRY")
    // Memory that the RMP does not cover is a place for images too.
    expect(transfer("SWAP_OUT", P, 0x1000)).toBe("SUCCESS")
    expect(transfer("SWAP_IN", LARGE, P)).toBe("INVALID_PAGE_SIZE")
    expect(transfer("SWAP_IN", 0x1000, Q)).toBe("INVALID_PAGE_STATE")
    expect(transfer("SWAP_IN", 0x1000, P)).toBe("SUCCESS")
    psp.execute({ command: "DECOMMISSION", pfn: CONTEXT })
    expect(transfer("SWAP_OUT", P, IMAGE)).toBe("INVALID_GUEST")
  })

  it("a metadata page of another guest does not describe this one's", () => {
    const { rmp, psp, transfer } = ready()
    firmwarePage(rmp, 6)
    psp.execute({ command: "MD_INIT", pfn: 6, contextPfn: OTHER_CONTEXT })
    firmwarePage(rmp, IMAGE)
    expect(transfer("SWAP_OUT", METADATA, IMAGE, 6)).toBe("INVALID_PAGE_OWNER")
  })
})

describe("any sequence of commands", () => {
  const pfn = fc.constantFrom(CONTEXT, METADATA, P, Q, IMAGE, 0x1000, LARGE, LARGE + 1)
  const command = fc.oneof(
    fc.record({
      command: fc.constantFrom("PAGE_RECLAIM", "PAGE_UNSMASH", "GCTX_CREATE", "DECOMMISSION", "PAGE_SET_STATE"),
      pfn
    }),
    fc.record({ command: fc.constant("MD_INIT"), pfn, contextPfn: pfn }),
    fc.record({ command: fc.constantFrom("PAGE_MOVE", "SWAP_OUT", "SWAP_IN"), pfn, targetPfn: pfn, metadataPfn: pfn }),
    fc.record({
      command: fc.constant("LAUNCH_UPDATE"),
      pfn,
      pageType: fc.integer({ min: 1, max: 6 }),
      asid: fc.constantFrom(ASID, 9),
      size: fc.constantFrom(0, 1),
      masks: fc.constant([1, 2, 3])
    })
  ) as fc.Arbitrary<PageCommand>
  const update = fc.record({
    pfn,
    assigned: fc.boolean(),
    size: fc.constantFrom(PAGE_4K, PAGE_2M),
    immutable: fc.boolean(),
    guest: fc.boolean()
  })

  it("leaves no state that has no name, and changes nothing when it is refused", () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(command, update), { minLength: 10, maxLength: 80 }), (steps) => {
        const { rmp, psp } = make(4)
        for (const step of steps) {
          if (!("command" in step)) {
            rmp.rmpupdate(
              step.pfn,
              step.assigned,
              step.size,
              step.immutable,
              step.guest ? step.pfn : 0,
              step.guest && step.assigned ? ASID : 0
            )
            continue
          }
          const before = contents(rmp)
          const { status } = psp.decide(step)
          expect(psp.execute(step)).toBe(status)
          if (status !== "SUCCESS") expect(contents(rmp)).toBe(before)
          for (const page of [CONTEXT, METADATA, P, Q, IMAGE, LARGE, LARGE + 1])
            expect(rmp.stateOf(page)).not.toBe("Invalid")
        }
      }),
      { seed: 20261121, numRuns: 300 }
    )
  })
})
