import { type AgentCommand, GUEST_VMPL, MIGRATION_RESULT, MIGRATION_ROLE, SVSM_RESULT } from "@vmpl-lab/guest"
import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { DEFAULT_VM_CONFIG, parseFirmware, syntheticFirmware } from "@vmpl-lab/hypervisor"
import {
  DEFAULT_SCENARIO,
  dataRange,
  Machine,
  MigrationFlow,
  MigrationSide,
  migrationResultName,
  Scenario,
  type SideOptions,
  svsmLaunch
} from "@vmpl-lab/lab"
import { PERMISSION } from "@vmpl-lab/rmp"
import { EFER_SVME, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { migrationService, movedPages } from "@vmpl-lab/svsm"
import { write } from "@vmpl-lab/vmpl"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { profile } from "../support/guestRun.ts"
import { outcomeOf, smallMigration } from "../support/migration.ts"

const started = (name: "source" | "target" = "source", changes: Partial<SideOptions> = {}): MigrationSide => {
  const side = new MigrationSide({
    name,
    strategy: STRATEGIES[0]!,
    profile,
    seed: 3,
    chip: name === "source" ? 1 : 2,
    vcpus: 2,
    data: dataRange(8),
    paceNs: 10_000,
    callEvery: 0,
    writes: () => 0xffff_ffff,
    writesAfter: 5,
    ...changes
  })
  outcomeOf(side.boot())
  return side
}

const answer = (side: MigrationSide, kind: AgentCommand["kind"], value = 0) => outcomeOf(side.command(kind, value))
const result = (side: MigrationSide, kind: AgentCommand["kind"], value = 0): string =>
  migrationResultName(answer(side, kind, value).result)

/** Both sides come to a key. */
const greet = (source: MigrationSide, target: MigrationSide): void => {
  const ours = source.take(answer(source, "hello", MIGRATION_ROLE.SOURCE).rcx)
  const theirs = target.take(answer(target, "hello", MIGRATION_ROLE.TARGET).rcx)
  source.put(theirs)
  expect(result(source, "peer", theirs.length)).toBe("SUCCESS")
  target.put(ours)
  expect(result(target, "peer", ours.length)).toBe("SUCCESS")
}

/** Both sides with a key. */
const keyed = (changes: Partial<SideOptions> = {}): readonly [MigrationSide, MigrationSide] => {
  const [source, target] = [started("source", changes), started("target", changes)]
  greet(source, target)
  return [source, target]
}

const WITHOUT_KEY = ["start", "mark", "export", "stop", "export-state", "import", "import-state", "resume"] as const

describe("the calls of a migration, out of their order", () => {
  it("are refused before there is a key, all but HELLO", () => {
    const side = started()
    for (const kind of [...WITHOUT_KEY, "peer"] as const)
      expect([kind, result(side, kind, 8)]).toEqual([kind, "WRONG_PHASE"])
    expect(result(side, "hello", 2)).toBe("INVALID_PARAMETER")
    expect(result(side, "hello", MIGRATION_ROLE.SOURCE)).toBe("SUCCESS")
    for (const kind of WITHOUT_KEY) expect([kind, result(side, kind, 8)]).toEqual([kind, "WRONG_PHASE"])
  })

  it("are refused to the side that they are not for: two that seal would use the same numbers under one key", () => {
    const [source, target] = keyed()
    for (const kind of ["start", "export", "export-state"] as const)
      expect([kind, result(target, kind, 8)]).toEqual([kind, "WRONG_PHASE"])
    for (const kind of ["import", "import-state"] as const)
      expect([kind, result(source, kind, 8)]).toEqual([kind, "WRONG_PHASE"])
  })

  it("are refused on the source once the guest is the other side's", () => {
    const [source] = keyed()
    expect(result(source, "start")).toBe("SUCCESS")
    expect(result(source, "export-state")).toBe("WRONG_PHASE")
    while (answer(source, "export", 1_000).r8 > 8);
    expect(result(source, "stop")).toBe("SUCCESS")
    // No host can run what is parked: VMRUN wants EFER.SVME.
    const { hardware, vmm } = source.machine
    for (const { vmsaGpa } of source.service.migration.parked) {
      const vmsa = hardware.memory.read(vmm.memory.privateFrameIfPresent(vmsaGpa / PAGE_SIZE), vmm.owner.asid)
      expect(vmsa.getUint32(VMSA.efer, true) & EFER_SVME).toBe(0)
    }
    expect(source.service.migration.parked.size).toBe(1)
    expect(result(source, "export-state")).toBe("PAGES_LEFT")
    while (answer(source, "export", 1_000).r8 > 0);
    expect(result(source, "export-state")).toBe("SUCCESS")
    for (const kind of [...WITHOUT_KEY, "hello", "peer"] as const)
      expect([kind, result(source, kind, 8)]).toEqual([kind, "WRONG_PHASE"])
  })

  it("may end before the guest has gone: it goes on where it was, with all its rights", () => {
    const [source] = keyed()
    expect(result(source, "start")).toBe("SUCCESS")
    while (answer(source, "export", 1_000).r8 > 8);
    expect(source.service.migration.guarded.size).toBeGreaterThan(8)
    expect(result(source, "stop")).toBe("SUCCESS")
    const { written } = source
    expect(result(source, "resume")).toBe("SUCCESS")
    expect(source.service.migration.guarded.size).toBe(0)
    outcomeOf(source.finish())
    expect(source.written).toBe(written + 5)
  })

  it("may begin anew with another key, and what was sealed before is nothing then", () => {
    const [source, target] = keyed()
    const { key: first } = source.service.migration
    expect(result(source, "start")).toBe("SUCCESS")
    const old = source.take(answer(source, "export", 1).rcx)
    expect(result(source, "resume")).toBe("SUCCESS")
    greet(source, target)
    expect(source.service.migration.key).toEqual(target.service.migration.key)
    expect(source.service.migration.key).not.toEqual(first)
    target.put(old)
    expect(result(target, "import", old.length)).toBe("NOT_AUTHENTIC")
    expect(result(source, "start")).toBe("SUCCESS")
    const fresh = source.take(answer(source, "export", 1).rcx)
    target.put(fresh)
    expect(result(target, "import", fresh.length)).toBe("SUCCESS")
  })

  it("may begin anew after that", () => {
    const [source] = keyed()
    for (let times = 0; times < 2; times++) {
      expect(result(source, "start")).toBe("SUCCESS")
      while (answer(source, "export", 1_000).r8 > 8);
      expect(result(source, "resume")).toBe("SUCCESS")
    }
    expect(source.service.migration.faults).toBeGreaterThan(0)
  })
})

describe("a page that was sent and is not to be sent again", () => {
  it("cannot be written by the guest, whatever the guest had the SVSM do with it meanwhile", () => {
    for (const seed of [1, 2, 3]) {
      const [source] = keyed({ seed, vcpus: 9, callEvery: 4, paceNs: 60_000 })
      expect(result(source, "start")).toBe("SUCCESS")
      for (let round = 0; round < 60; round++) answer(source, "export", 1_000)
      expect(result(source, "stop")).toBe("SUCCESS")
      const { machine, service } = source
      const { migration } = service
      const clean = movedPages(machine.svsm, migration).filter((gfn) => !migration.pending.has(gfn))
      expect(clean.length).toBeGreaterThan(8)
      const writable = clean.filter((gfn) => {
        const { perms } = machine.hardware.rmp.entry(machine.vmm.memory.privateFrameIfPresent(gfn))
        return (perms[GUEST_VMPL]! & PERMISSION.WRITE) !== 0
      })
      expect(writable).toEqual([])
    }
  })
})

describe("an SVSM that takes a guest", () => {
  it("survives anything in its place, and takes none of it", () => {
    const [, target] = keyed()
    const bytes = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 300 }),
      // With the magic of a record, so that more of it is looked at.
      fc.uint8Array({ minLength: 60, maxLength: 300 }).map((some) => {
        const copy = Uint8Array.from(some)
        new DataView(copy.buffer).setUint32(0, 0x5252_474d, true)
        copy.fill(0, 8, 16)
        return copy
      })
    )
    fc.assert(
      fc.property(bytes, fc.constantFrom("import", "import-state"), (garbage, kind) => {
        target.put(garbage)
        const { result: code, rdx } = answer(target, kind, garbage.length)
        expect(["MALFORMED", "OUT_OF_SEQUENCE", "NOT_AUTHENTIC"]).toContain(migrationResultName(code))
        if (kind === "import") expect(rdx).toBe(0)
      }),
      { seed: 5, numRuns: 200 }
    )
    expect(target.service.migration.versions.size).toBe(0)
  })

  it("goes on with the record that it expected, after one that it did not", () => {
    const options = smallMigration()
    let taken = 0
    const flow = new MigrationFlow({
      ...options,
      carries: (message) => {
        const target = flow.sides[1]
        target.put(new Uint8Array(message.bytes.length))
        const { result: code } = outcomeOf(target.command("import", message.bytes.length))
        expect(code).toBe(MIGRATION_RESULT.MALFORMED)
        taken++
        return [message]
      }
    })
    const run = outcomeOf(flow.run())
    expect(taken).toBeGreaterThan(1)
    expect(run.targetDigest).toBe(run.sourceDigest)
  })

  it("refuses lengths that no buffer has", () => {
    const [, target] = keyed()
    for (const length of [0, 2 ** 40, -1 >>> 0]) {
      const { result: code } = answer(target, "import", length)
      expect(code).toBe(SVSM_RESULT.INVALID_ADDRESS)
    }
  })
})

describe("a level that misses a right for another reason", () => {
  it.each(STRATEGIES.map((strategy) => [strategyName(strategy), strategy] as const))(
    "ends the guest under %s, as there is nobody to give it the SVSM's memory",
    (_name, strategy) => {
      const svsm = svsmLaunch(parseFirmware(syntheticFirmware(), "built-in firmware"), 1)
      const { protocol } = migrationService({ newPrivateKey: () => new Uint8Array(48).fill(1), genuine: () => null })
      const machine = new Machine({
        strategy,
        scenario: new Scenario({ ...DEFAULT_SCENARIO, vcpus: 1, calls: 0, boots: 1 }),
        profile,
        seed: 1,
        calls: true,
        svsm,
        services: [protocol],
        vmConfig: { ...DEFAULT_VM_CONFIG, vmplFaults: "run-vmpl0" },
        *body(plan, apicId) {
          plan.report.ready(apicId)
          yield write(svsm.parameters.svsm.gpa, 4, 1)
          plan.report.done(apicId)
        }
      })
      while (machine.stepMany(10_000));
      expect(machine.failure()).toMatch(/VMPL0 terminates/)
    }
  )
})
