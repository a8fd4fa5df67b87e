// @section 1.7
import { PAGE_4K, Rmp } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { POLICY, type PspMemory, SnpFirmware } from "../src/index.ts"

const GCTX = 8
const METADATA = 9
const P = 0x10
const Q = 0x11
const IMAGE = 0x20
const ASID = 5
const GFN = 0x77

/** Memory in which every frame holds bytes and the ASID whose key wrote them; another key sees noise. */
const makeMemory = () => {
  const frames = new Map<number, { readonly asid: number; readonly bytes: Uint8Array }>()
  const read = (pfn: number, asid: number): Uint8Array => {
    const frame = frames.get(pfn)
    if (frame === undefined) return new Uint8Array(PAGE_SIZE)
    return frame.asid === asid ? frame.bytes : frame.bytes.map((byte, i) => byte ^ (i * 7 + frame.asid + asid + 1))
  }
  const write = (pfn: number, asid: number, contents: Uint8Array): void => {
    frames.set(pfn, { asid, bytes: Uint8Array.from(contents) })
  }
  const memory: PspMemory = {
    readPlain: (pfn) => read(pfn, 0),
    writePlain: (pfn, contents) => write(pfn, 0, contents),
    readEncrypted: read,
    writeEncrypted: write,
    createKey: () => {},
    destroyKey: () => {}
  }
  return { memory, read, write }
}

const secret = Uint8Array.from({ length: PAGE_SIZE }, (_, i) => (i * 31) & 0xff)

/** A launching guest that gets a Pre-Swap page that holds a secret, and a metadata page. */
const ready = (policy = POLICY.SMT | POLICY.RESERVED_MUST_BE_ONE) => {
  const rmp = new Rmp({ pages: 512 })
  const { memory, read, write } = makeMemory()
  const firmware = new SnpFirmware(rmp, memory, { seed: 1, abiMinor: 58 })
  for (const pfn of [GCTX, METADATA, IMAGE, IMAGE + 1]) rmp.rmpupdate(pfn, true, PAGE_4K, true, 0, 0)
  firmware.gctxCreate(GCTX)
  firmware.launchStart({ gctx: GCTX, policy })
  const assign = () => {
    rmp.rmpupdate(P, true, PAGE_4K, false, GFN, ASID)
    rmp.pvalidate(ASID, 0, GFN, P, PAGE_4K, PAGE_4K, true)
    rmp.rmpupdate(P, true, PAGE_4K, true, GFN, ASID)
    write(P, ASID, secret)
  }
  const activate = () => {
    expect(firmware.activate(GCTX, ASID)).toBe("SUCCESS")
    assign()
  }
  const move = (command: "PAGE_MOVE" | "SWAP_OUT" | "SWAP_IN", pfn: number, targetPfn: number) =>
    firmware.pageCommand({ command, pfn, targetPfn, metadataPfn: METADATA })
  const initMetadata = () => firmware.pageCommand({ command: "MD_INIT", pfn: METADATA, contextPfn: GCTX })
  return { rmp, firmware, read, write, assign, activate, move, initMetadata }
}

describe("contents of moved and swapped pages", () => {
  it("PAGE_MOVE: the guest finds what it wrote", () => {
    const { rmp, read, activate, move } = ready()
    activate()
    rmp.rmpupdate(Q, true, PAGE_4K, true, 0, ASID)
    expect(move("PAGE_MOVE", P, Q)).toBe("SUCCESS")
    expect(read(Q, ASID)).toEqual(secret)
    expect(rmp.stateOf(Q)).toBe("Guest-Valid")
  })

  it("SWAP_OUT leaves an image that shows nothing, SWAP_IN brings the contents back", () => {
    const { read, write, activate, move, initMetadata } = ready()
    activate()
    expect(initMetadata()).toBe("SUCCESS")
    expect(move("SWAP_OUT", P, IMAGE)).toBe("SUCCESS")
    const image = read(IMAGE, 0).slice()
    expect(image).not.toEqual(secret)
    // The hypervisor may keep the image anywhere.
    write(IMAGE + 1, 0, image)
    write(P, 0, new Uint8Array(PAGE_SIZE))
    expect(move("SWAP_IN", IMAGE + 1, P)).toBe("SUCCESS")
    expect(read(P, ASID)).toEqual(secret)
  })

  it("F1: an image that was changed, or is an older one, is refused and the page keeps its contents", () => {
    const { rmp, read, write, activate, move, initMetadata } = ready()
    activate()
    initMetadata()
    move("SWAP_OUT", P, IMAGE)
    const old = read(IMAGE, 0).slice()
    const changed = old.slice()
    changed[100]! ^= 1
    write(IMAGE, 0, changed)
    expect(move("SWAP_IN", IMAGE, P)).toBe("BAD_MEASUREMENT")
    expect([rmp.stateOf(P), rmp.entry(P).validated]).toEqual(["Pre-Guest", false])
    write(IMAGE, 0, old)
    expect(move("SWAP_IN", IMAGE, P)).toBe("SUCCESS")
    expect(move("SWAP_IN", IMAGE, P)).toBe("INVALID_MDATA_ENTRY")
    expect(move("SWAP_OUT", P, IMAGE + 1)).toBe("SUCCESS")
    expect(read(IMAGE + 1, 0)).not.toEqual(old)
    expect(move("SWAP_IN", IMAGE, P)).toBe("BAD_MEASUREMENT")
  })

  it("the guest must be launched and active, and the pages its own", () => {
    const inactive = ready()
    inactive.assign()
    expect(inactive.initMetadata()).toBe("SUCCESS")
    expect(inactive.move("SWAP_OUT", P, IMAGE)).toBe("INACTIVE")
    const { rmp, firmware, activate, move, initMetadata } = ready()
    activate()
    expect(initMetadata()).toBe("SUCCESS")
    expect(move("PAGE_MOVE", P, P)).toBe("INVALID_PAGE_STATE")
    rmp.rmpupdate(Q, true, PAGE_4K, true, GFN, ASID + 1)
    expect(move("SWAP_OUT", Q, IMAGE)).toBe("INVALID_PAGE_OWNER")
    const off = new SnpFirmware(rmp, makeMemory().memory, { seed: 1, initialised: false })
    expect(off.pageCommand({ command: "PAGE_RECLAIM", pfn: P })).toBe("INVALID_PLATFORM_STATE")
    expect(firmware.pageCommand({ command: "PAGE_RECLAIM", pfn: P })).toBe("SUCCESS")
    expect(rmp.stateOf(P)).toBe("Guest-Valid")
  })

  it("a guest that forbids swapping keeps its pages where they are", () => {
    const policy = POLICY.SMT | POLICY.RESERVED_MUST_BE_ONE | POLICY.PAGE_SWAP_DISABLE
    const { rmp, activate, move, initMetadata } = ready(policy)
    activate()
    expect(initMetadata()).toBe("SUCCESS")
    rmp.rmpupdate(Q, true, PAGE_4K, true, 0, ASID)
    expect(move("SWAP_OUT", P, IMAGE)).toBe("POLICY_FAILURE")
    expect(move("PAGE_MOVE", P, Q)).toBe("POLICY_FAILURE")
    expect(rmp.stateOf(P)).toBe("Pre-Swap")
  })

  it("MD_INIT needs a launched guest", () => {
    const rmp = new Rmp({ pages: 512 })
    const firmware = new SnpFirmware(rmp, makeMemory().memory, { seed: 1 })
    for (const pfn of [GCTX, METADATA]) rmp.rmpupdate(pfn, true, PAGE_4K, true, 0, 0)
    firmware.gctxCreate(GCTX)
    const command = { command: "MD_INIT", pfn: METADATA, contextPfn: GCTX } as const
    expect(firmware.pageCommand(command)).toBe("INVALID_GUEST_STATE")
    expect(rmp.stateOf(METADATA)).toBe("Firmware")
  })
})
