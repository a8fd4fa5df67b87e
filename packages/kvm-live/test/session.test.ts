import {
  AP_CREATE_VCPUS,
  AP_CREATIONS,
  CHOREOGRAPHIES,
  KVM_DEVICE,
  LIVE_CASES,
  measure,
  primitivesOf,
  probe,
  probeKvmDevice,
  runApCreation,
  runCases,
  Session
} from "@vmpl-lab/kvm-live"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { order } from "../src/Session.ts"
import { recordedSession, TEST_OPTIONS } from "./support/recorded.ts"

const device = probeKvmDevice()
const here = device.state === "usable" ? "real guests on this machine's KVM" : `${device.path} is not usable here`
if (device.state !== "usable") {
  process.stderr.write(`no live KVM: ${device.why}; the recorded session is tested alone\n`)
}

/** The recorded session everywhere; this machine's KVM too where it is usable. */
const SESSIONS: ReadonlyArray<readonly [string, () => Session]> = [
  ["a recorded session of ioctl replies", () => Session.replay(KVM_DEVICE, recordedSession())],
  ...(device.state === "usable" ? [[here, () => Session.open(KVM_DEVICE)] as const] : [])
]

describe.each(SESSIONS)("%s", (_, open) => {
  let session: Session
  beforeAll(() => {
    session = open()
  })
  afterAll(() => session.close())

  it("measures every case, or says why not", async () => {
    const { measured, notMeasured } = await measure(session, TEST_OPTIONS)
    const ids = [...measured, ...notMeasured].map(({ id }) => id)
    expect(ids.toSorted()).toEqual(LIVE_CASES.map(({ id }) => id).toSorted())
    for (const { id, summary, net, overhead, raw } of measured) {
      expect([id, summary.rounds.length, raw.length]).toEqual([id, TEST_OPTIONS.rounds, TEST_OPTIONS.rounds])
      expect(summary.p10).toBeLessThanOrEqual(summary.median)
      expect(summary.median).toBeLessThanOrEqual(summary.p90)
      expect(net).toBeCloseTo(Math.max(0, summary.median - overhead), 6)
    }
    const found = new Map(measured.map(({ id, net }) => [id, net]))
    // What contains another path takes longer.
    expect(found.get("port-write-long")!).toBeGreaterThan(found.get("null-ioctl")!)
    expect(found.get("create-vm")!).toBeGreaterThan(found.get("port-write-long")!)
    const names = primitivesOf(measured).flatMap(({ primitives }) => primitives)
    expect(names).toContain("userspace_exit")
    expect(new Set(names).size).toBe(names.length)
  }, 120_000)

  it("acts out the strategies: guests count every call, asked and served", async () => {
    const { taken, notMeasured } = await runCases(session, CHOREOGRAPHIES, TEST_OPTIONS)
    const ids = [...taken.keys(), ...notMeasured.map(({ id }) => id)]
    expect(ids.toSorted()).toEqual(CHOREOGRAPHIES.map(({ id }) => id).toSorted())
    for (const [, rounds] of taken) for (const round of rounds) expect(Math.min(...round)).toBeGreaterThan(0)
  }, 120_000)
})

describe.skipIf(device.state !== "usable")(`${here}: what is not in the recording`, () => {
  const live = async <A>(use: (session: Session) => Promise<A>): Promise<A> => {
    const session = Session.open(KVM_DEVICE)
    try {
      return await use(session)
    } finally {
      await session.close()
    }
  }

  it("is what it says it is", () =>
    live(async (session) => {
      const { apiVersion, cpus, backend, notMeasurable } = probe(session)
      expect([apiVersion, cpus > 0, backend.length > 0]).toEqual([12, true, true])
      expect(notMeasurable.at(-1)?.why).toContain("SEV-SNP hardware")
    }))

  it("a guest that triple-faults is told in one line", () =>
    live((session) =>
      session.withGuest(
        { mode: "long", vcpus: [{ program: Uint8Array.of(0x0f, 0x0b), at: 0x8000 }] },
        async (guest) => {
          const task = order("portWrite", { samples: 1, warmUp: 0 }, { vcpu: guest.shared[0]!, synced: "none" })
          await expect(session.solo(task)).rejects.toThrow(/^KVM_RUN ends with KVM_EXIT_(SHUTDOWN|INTERNAL_ERROR)/)
        }
      )
    ))

  it("creates a level's objects one by one", () =>
    live(async (session) => {
      for (const creation of AP_CREATIONS) {
        const samples = await runApCreation(session, creation, 1)
        expect([samples.length, Math.min(...samples) > 0]).toEqual([AP_CREATE_VCPUS, true])
      }
    }))

  it("gives up at once when it is closed: a vCPU that spins in the guest is kicked out", () =>
    live(async (session) => {
      const spinning = session.withGuest(
        { mode: "long", vcpus: [{ program: Uint8Array.of(0xeb, 0xfe), at: 0x8000 }] },
        (guest) =>
          session.solo(order("portWrite", { samples: 1, warmUp: 0 }, { vcpu: guest.shared[0]!, synced: "none" }))
      )
      const ended = expect(spinning).rejects.toThrow(/EINTR|given up|thread/)
      await new Promise((resolve) => setTimeout(resolve, 300))
      await session.close()
      await ended
    }))

  it("closed in the middle of a pair, it releases nothing that a thread still uses", () =>
    live(async (session) => {
      const { run } = CHOREOGRAPHIES.find(({ id }) => id === "vcpu-per-vmpl vmm-threads one core")!
      const ended = expect(run(session, { samples: 10_000_000, warmUp: 0 })).rejects.toThrow(/given up|EINTR|thread/)
      await new Promise((resolve) => setTimeout(resolve, 500))
      await session.close()
      await ended
    }))
})
