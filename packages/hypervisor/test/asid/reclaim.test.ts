import { AsidTable, type PspMemory, SEV_POLICY, SevFirmware } from "@vmpl-lab/psp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { expect, it } from "vitest"
import { ERRNO, SevAsids, type SevKind } from "../../src/index.ts"

const CORES = 4
const page = new Uint8Array(PAGE_SIZE)
const memory: PspMemory = {
  readPlain: () => page,
  writePlain: () => {},
  readEncrypted: () => page,
  writeEncrypted: () => {},
  createKey: () => {},
  destroyKey: () => {}
}

/** A host whose KVM and firmware keep their own books of the ASIDs. */
const makeHost = (skipsCore: number | null = null) => {
  const table = new AsidTable({ maxAsid: 6, minSevAsid: 4, cores: CORES, coresPerCcx: 2 })
  const firmware = new SevFirmware(memory, { seed: 1, asids: table })
  const asids = new SevAsids({
    capabilities: { guests: 6, minSevNoEsAsid: 4 },
    flush: {
      wbinvdOnAllCpus: () => {
        for (let core = 0; core < CORES; core++) if (core !== skipsCore) firmware.wbinvdDone(core)
      },
      dfFlush: () => firmware.dfFlush()
    }
  })
  const start = (kind: SevKind, runs: boolean): { handle: number; asid: number } | number => {
    const asid = asids.allocate(kind)
    if (asid < 0) return asid
    const { handle } = firmware.launchStart({ policy: kind === "sev" ? 0 : SEV_POLICY.ES })
    expect(firmware.activate(handle, asid)).toBe("SUCCESS")
    firmware.launchMeasure(handle)
    if (runs) expect(firmware.launchFinish(handle)).toBe("SUCCESS")
    return { handle, asid }
  }
  const stop = ({ handle, asid }: { handle: number; asid: number }): void => {
    expect(firmware.deactivate(handle)).toBe("SUCCESS")
    expect(firmware.decommission(handle)).toBe("SUCCESS")
    asids.free(asid)
  }
  return { table, asids, start, stop }
}

it("the firmware accepts every ASID that KVM hands out", () => {
  const seen = { reused: 0, busy: 0 }
  const deed = fc.record({
    start: fc.boolean(),
    kind: fc.constantFrom<SevKind>("sev", "sev-es"),
    runs: fc.boolean(),
    pick: fc.nat(100)
  })
  fc.assert(
    fc.property(fc.array(deed, { maxLength: 80, size: "max" }), (deeds) => {
      const host = makeHost()
      const guests: Array<{ handle: number; asid: number }> = []
      const everUsed = new Set<number>()
      for (const { start, kind, runs, pick } of deeds) {
        if (start) {
          const guest = host.start(kind, runs)
          if (typeof guest === "number") {
            expect(guest).toBe(ERRNO.EBUSY)
            seen.busy++
            continue
          }
          if (everUsed.has(guest.asid)) seen.reused++
          everUsed.add(guest.asid)
          guests.push(guest)
        } else if (guests.length > 0) host.stop(guests.splice(pick % guests.length, 1)[0]!)
      }
    }),
    { seed: 2, numRuns: 150 }
  )
  expect(seen.reused).toBeGreaterThan(0)
  expect(seen.busy).toBeGreaterThan(0)
})

it("a host that leaves out a core gets no ASID back", () => {
  const host = makeHost(3)
  const guests = [1, 2, 3].map(() => host.start("sev-es", true))
  host.stop(guests[0] as { handle: number; asid: number })
  expect(host.start("sev-es", true)).toBe(ERRNO.EBUSY)
  expect(host.table.stateOf(1)).toBe("dirty")
})
