import {
  type ClientJob,
  CORE_CALL,
  CORE_VERSION_1,
  PROTOCOL,
  pvalidateList,
  SVSM_RESULT,
  VTPM_CALL
} from "@vmpl-lab/guest"
import { type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import type { Profile } from "@vmpl-lab/sim"
import * as Effect from "effect/Effect"
import { RunFailed } from "../RunFailed.ts"
import { GuestMachine, type JobOutcome } from "../tpm/GuestMachine.ts"
import { guestTpm } from "../tpm/GuestTpm.ts"
import { serviceGuest } from "../tpm/ServiceGuest.ts"
import type { TpmBackEnd } from "../tpm/Swtpm.ts"
import { TPM_CC, tpmError, u16, u32, WITH_SESSIONS, withSize } from "../tpm/TpmMessage.ts"
import { latencyRow, type ServiceLatency } from "./RunService.ts"
import { resultName } from "./ServiceJobs.ts"

/** What is asked for the table of all calls. */
export interface LatencyOptions {
  readonly strategies: ReadonlyArray<Strategy>
  readonly profile: Profile
  readonly seed: number
  readonly calls: number
  /** Null where there is no TPM: then its calls are left out. */
  readonly tpm: TpmBackEnd | null
}

type Named = readonly [name: string, job: ClientJob]

const core = (call: number, rcx: number, writes: Extract<ClientJob, { kind: "call" }>["writes"] = []): ClientJob => ({
  kind: "call",
  protocol: PROTOCOL.CORE,
  call,
  registers: { rcx },
  writes,
  reads: []
})

/** Calls of the core protocol that a guest can make again and again, in an order that undoes what they do. */
const coreJobs = ([list, page]: ReadonlyArray<number>): ReadonlyArray<Named> => {
  const pvalidate = (validate: boolean): ClientJob =>
    core(CORE_CALL.PVALIDATE, list!, [{ gpa: list!, bytes: pvalidateList([{ gpa: page!, validate }]) }])
  return [
    ["QUERY_PROTOCOL", core(CORE_CALL.QUERY_PROTOCOL, CORE_VERSION_1)],
    ["PVALIDATE, one page rescinded", pvalidate(false)],
    ["PVALIDATE, one page validated", pvalidate(true)]
  ]
}

const tpm = (command: Uint8Array): ClientJob => ({ kind: "tpm", command, locality: 0, size: command.length })

const RS_PW = 0x4000_0009
const SHA256 = 0x000b

const pcrExtend = (): Uint8Array =>
  withSize([
    ...u16(WITH_SESSIONS),
    ...u32(0),
    ...u32(TPM_CC.PCR_Extend),
    ...u32(16),
    ...u32(9),
    ...u32(RS_PW),
    ...[0, 0, 0, 0, 0],
    ...u32(1),
    ...u16(SHA256),
    ...new Uint8Array(32).fill(0xaa)
  ])

const tpmJobs = (): ReadonlyArray<Named> => [
  [
    "VTPM_QUERY",
    { kind: "call", protocol: PROTOCOL.VTPM, call: VTPM_CALL.QUERY, registers: {}, writes: [], reads: [] }
  ],
  ["TPM2_GetRandom", tpm(withSize([...tpmError(TPM_CC.GetRandom), ...u16(16)]))],
  ["TPM2_PCR_Extend", tpm(pcrExtend())]
]

/** The latency of every call that the SVSM's own protocols serve to a guest that is up, under each strategy. */
export const serviceLatency = Effect.fnUntraced(function* (options: LatencyOptions) {
  const { profile, seed, tpm } = options
  const rows: Array<ServiceLatency> = []
  for (const strategy of options.strategies) {
    const { launched } = serviceGuest(strategy)
    const input = { ...launched, profile, seed }
    let guest: GuestMachine
    if (tpm === null) {
      guest = new GuestMachine({ ...input, services: [], answerers: [] })
      yield* guest.boot
    } else {
      yield* tpm.powerCycle
      guest = (yield* guestTpm(tpm, input)).guest
    }
    const jobs = [...coreJobs(guest.buffers), ...(tpm === null ? [] : tpmJobs())]
    const outcomes = new Map<string, Array<JobOutcome>>(jobs.map(([name]) => [name, []]))
    for (let i = 0; i < options.calls; i++) {
      for (const [name, job] of jobs) {
        const outcome = yield* guest.run(job)
        if (outcome.result !== SVSM_RESULT.SUCCESS) {
          return yield* new RunFailed({ why: `${strategyName(strategy)}, ${name}: ${resultName(outcome.result)}` })
        }
        outcomes.get(name)!.push(outcome)
      }
    }
    for (const [name, list] of outcomes) rows.push(latencyRow(strategyName(strategy), name, list))
    yield* guest.end
  }
  return rows
})
