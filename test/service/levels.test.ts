/** Services called from each level of the guest, and services at VMPL1. */
import { blockOf, type ClientJob, SVSM_RESULT } from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import {
  type ClientLevels,
  defineCall,
  defineService,
  GuestMachine,
  guestBuffer,
  hostService,
  pvalidateJob,
  runService,
  serviceGuest,
  u64
} from "@vmpl-lab/lab"
import { PERMISSION } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { profile } from "../support/guestRun.ts"
import { vmplLab } from "../support/shell.ts"

const PROTOCOL = 0x1234
const SECRET = new TextEncoder().encode("kept at its own level and no other")

/** Keeps a secret, copies a buffer within itself, and says who called. */
const service = defineService({
  name: "levels",
  protocol: PROTOCOL,
  version: { min: 1, max: 1 },
  calls: {
    keep: defineCall({
      call: 0,
      uses: ["secrets"],
      costNs: 0,
      request: { buffer: guestBuffer("rcx", { size: 16, align: 16 }) },
      reply: { level: u64("rdx") },
      handler: ({ buffer }, { secrets, vmpl }) =>
        Effect.gen(function* () {
          yield* secrets.set("s", SECRET)
          const bytes = yield* buffer.read(0, 8)
          yield* buffer.write(bytes, 8)
          return { level: BigInt(vmpl) }
        })
    })
  }
})

const LEVELS: ReadonlyArray<ClientLevels> = [
  { vmpl: 1, serviceVmpl: 0 },
  { vmpl: 2, serviceVmpl: 0 },
  { vmpl: 3, serviceVmpl: 0 },
  { vmpl: 2, serviceVmpl: 1 },
  { vmpl: 3, serviceVmpl: 1 }
]

const machineWith = async (levels: ClientLevels, strategy = STRATEGIES[0]!) => {
  const { launched } = serviceGuest(strategy, levels)
  const { service: served, answerer, serveCall } = hostService(service, 1)
  const guest = new GuestMachine({
    ...launched,
    profile,
    seed: 1,
    services: levels.serviceVmpl === 0 ? [served] : [],
    answerers: [answerer],
    levelCalls: new Map([[PROTOCOL, serveCall]])
  })
  await Effect.runPromise(guest.boot)
  const run = (job: ClientJob) => Effect.runPromise(guest.run(job))
  const call = (rcx: number, reads: Extract<ClientJob, { kind: "call" }>["reads"] = []) =>
    run({ kind: "call", protocol: PROTOCOL, call: 0, registers: { rcx }, writes: [], reads })
  return { guest, run, call, svsm: launched.svsm }
}

describe.each(LEVELS)("a service at VMPL$serviceVmpl, called from VMPL$vmpl", (levels) => {
  it("serves its caller's buffers under every strategy", async () => {
    for (const strategy of STRATEGIES) {
      const { guest, run, call } = await machineWith(levels, strategy)
      const [page] = guest.buffers
      await run({
        kind: "call",
        protocol: 0,
        call: 6,
        registers: { rcx: 1 },
        writes: [{ gpa: page!, bytes: Uint8Array.of(1, 2, 3) }],
        reads: []
      })
      const read = new Uint8Array(16)
      const outcome = await call(page!, [{ gpa: page!, bytes: read }])
      expect(outcome).toMatchObject({ result: SVSM_RESULT.SUCCESS, rdx: levels.vmpl })
      expect([...read]).toEqual([1, 2, 3, 0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0])
      await Effect.runPromise(guest.end)
      expect(guest.machine.failure()).toBeNull()
    }
  })

  it("keeps its secrets from every level below its own", async () => {
    const { guest, call } = await machineWith(levels)
    expect((await call(guest.buffers[0]!)).result).toBe(SVSM_RESULT.SUCCESS)
    const { rmp, memory } = guest.machine.hardware
    const found = Array.from({ length: rmp.coveredPages }, (_, pfn) => pfn).filter((pfn) => {
      const { assigned, asid } = rmp.entry(pfn)
      if (!assigned || asid === 0) return false
      const { buffer, byteOffset } = memory.read(pfn, asid)
      return Buffer.from(buffer, byteOffset, PAGE_SIZE).includes(Buffer.from(SECRET))
    })
    expect(found).toHaveLength(1)
    const { perms } = rmp.entry(found[0]!)
    expect([...perms]).toEqual(levels.serviceVmpl === 0 ? [0xf, 0, 0, 0] : [0xf, 0xf, 0, 0])
  })

  it("refuses what the caller may not name, and what it has given away", async () => {
    const { guest, run, call, svsm } = await machineWith(levels)
    const [list, page] = guest.buffers
    const at = async (gpa: number) => (await call(gpa)).result
    expect(await at(list! + 8)).toBe(SVSM_RESULT.INVALID_PARAMETER)
    for (const gpa of [svsm.parameters.svsm.gpa, blockOf(svsm, 0), 2 ** 51, svsm.parameters.ramSize - 16]) {
      expect(await at(gpa)).toBe(SVSM_RESULT.INVALID_ADDRESS)
    }
    expect(await at(page!)).toBe(SVSM_RESULT.SUCCESS)
    expect((await run(pvalidateJob(list!, [{ gpa: page!, validate: false }]))).result).toBe(SVSM_RESULT.SUCCESS)
    expect(await at(page!)).toBe(SVSM_RESULT.INVALID_ADDRESS)
    expect(await at(list!)).toBe(SVSM_RESULT.SUCCESS)
  })

  it.runIf(levels.vmpl === 3 || levels.serviceVmpl === 1)(
    "reads and writes nothing that its caller may not",
    async () => {
      const { guest, call } = await machineWith(levels)
      const [page] = guest.buffers
      const { machine } = guest
      const pfn = machine.vmm.memory.privateFrame(page! / PAGE_SIZE)
      const { asid } = machine.hardware.rmp.entry(pfn)
      const allow = (mask: number): number =>
        machine.hardware.rmp.rmpadjust(asid, 0, page! / PAGE_SIZE, pfn, 0, 0, levels.vmpl, mask, false)
      expect([allow(PERMISSION.READ), (await call(page!)).result]).toEqual([0, SVSM_RESULT.INVALID_ADDRESS])
      expect([allow(PERMISSION.ALL), (await call(page!)).result]).toEqual([0, SVSM_RESULT.SUCCESS])
    }
  )

  it("answers random calls as under any other strategy", async () => {
    const options = { service, strategies: STRATEGIES.slice(0, 4), profile, seed: 3, calls: 1, fuzz: 150, levels }
    const { fuzz } = await Effect.runPromise(runService(options))
    for (const { results } of fuzz) expect(results).toEqual(fuzz[0]!.results)
    expect(fuzz[0]!.results).toHaveProperty("INVALID_ADDRESS")
  })
})

it.each([
  [["--service-vmpl", "1", "--vmpl", "1"], "--vmpl: 1, expected 2 or 3 with --service-vmpl 1"],
  [["--vmpl", "0"], '--vmpl: expected "1" | "2" | "3", got "0"']
])("service run %j is refused", async (args, line) => {
  const { code, out, err } = await vmplLab(["service", "run", "no-such-file.ts", ...args])
  expect([code, out, err]).toEqual([2, "", `vmpl-lab: ${line}\n`])
})
