import { BLOCK, blockOf, type ClientJob, SVSM_RESULT } from "@vmpl-lab/guest"
import { type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import { SEV_FEATURES } from "@vmpl-lab/sev-es"
import type { Profile } from "@vmpl-lab/sim"
import * as Effect from "effect/Effect"
import { hostCertificates } from "../attestation/AttestRun.ts"
import { builtInFirmware } from "../Compare.ts"
import { ALTERNATE_INJECTION, interruptVmConfig } from "../InterruptRun.ts"
import { RunFailed } from "../RunFailed.ts"
import { HIGH_RAM_GPA, svsmLaunch } from "../SvsmLaunch.ts"
import { type ClientLevels, clientNeeds, PLAIN_LEVELS } from "../tpm/ClientWork.ts"
import { GuestMachine, type JobOutcome } from "../tpm/GuestMachine.ts"
import { serviceScenario } from "../tpm/ServiceGuest.ts"
import type { TpmBackEnd } from "../tpm/Swtpm.ts"
import { responseCode, TPM_RC } from "../tpm/TpmMessage.ts"
import type { CallGroup, LatencyPlace } from "./latency/CallGroup.ts"
import { callGroups, MEASURED_GROUPS } from "./latency/CallGroups.ts"
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

const MIB = 0x10_0000
const REGION = 2 * MIB

/** A guest with the memory that the calls need: the first 2 MiB region above 4 GiB in one page, the second in small ones. */
const boot = Effect.fnUntraced(function* (
  strategy: Strategy,
  { profile, seed }: Pick<LatencyOptions, "profile" | "seed">,
  groups: ReadonlyArray<CallGroup>
) {
  const isAlternate = groups.some(({ alternateInjection }) => alternateInjection === true)
  const levels = levelsOf(groups[0]!)
  const svsm = svsmLaunch(builtInFirmware(), serviceScenario.vcpus, {
    ...clientNeeds(levels),
    highRam: 2 * REGION,
    isLarge: (region) => region === 0,
    ...(isAlternate ? { interrupts: ALTERNATE_INJECTION } : {})
  })
  const guest = new GuestMachine({
    strategy,
    scenario: serviceScenario,
    profile,
    seed,
    svsm,
    levels,
    levelCalls: new Map(groups.flatMap(({ levelCalls = [] }) => [...levelCalls])),
    services: groups.flatMap(({ services = [] }) => services),
    answerers: groups.flatMap(({ answerers = [] }) => answerers),
    certificates: (identity) => hostCertificates(identity, "VCEK"),
    ...(isAlternate ? { vmConfig: interruptVmConfig(true) } : {})
  })
  for (const { prepare } of groups) prepare?.(guest.machine.svsm)
  yield* guest.boot
  const block = blockOf(svsm, 0)
  const { interrupts } = svsm.parameters
  const place: LatencyPlace = {
    buffers: guest.buffers,
    vmsaPage: block + BLOCK.VMSA,
    callingAreas: [block + BLOCK.CALLING_AREA, block + BLOCK.OTHER_CALLING_AREA],
    pages: svsm.heapGpa + MIB,
    region: HIGH_RAM_GPA,
    smallRegion: HIGH_RAM_GPA + REGION,
    sevFeatures: interrupts?.guestFeatures ?? SEV_FEATURES.SNPActive
  }
  return { guest, place }
})

/** A job that has to succeed, with the TPM too where it has a part. */
const succeed = (guest: GuestMachine, what: string, job: ClientJob) =>
  Effect.flatMap(guest.run(job), (outcome): Effect.Effect<JobOutcome, RunFailed> => {
    const { result, response } = outcome
    const failed = (why: string) => Effect.fail(new RunFailed({ why: `${what}: ${why}` }))
    if (result !== SVSM_RESULT.SUCCESS) return failed(resultName(result))
    const code = job.kind === "tpm" ? responseCode(response) : TPM_RC.SUCCESS
    return code === TPM_RC.SUCCESS ? Effect.succeed(outcome) : failed(`the TPM answers 0x${code.toString(16)}`)
  })

const levelsOf = ({ levels }: CallGroup): ClientLevels => levels ?? PLAIN_LEVELS

/** Groups that go together into one guest: those with the same levels and the same way of interrupts. */
const guestsOf = (groups: ReadonlyArray<CallGroup>): ReadonlyArray<ReadonlyArray<CallGroup>> => {
  const guests = new Map<string, Array<CallGroup>>()
  for (const group of groups) {
    const { vmpl, serviceVmpl } = levelsOf(group)
    const key = `${vmpl} ${serviceVmpl} ${group.alternateInjection === true}`
    guests.set(key, [...(guests.get(key) ?? []), group])
  }
  return [...guests.values()]
}

/** The latency of every call that the SVSM's protocols serve to a guest that is up, under each strategy. */
export const serviceLatency = Effect.fnUntraced(function* (options: LatencyOptions) {
  const rows: Array<ServiceLatency> = []
  for (const strategy of options.strategies) {
    const name = strategyName(strategy)
    if (options.tpm !== null) yield* options.tpm.powerCycle
    for (const groups of guestsOf(callGroups(options.tpm))) {
      const { guest, place } = yield* boot(strategy, options, groups)
      for (const { protocol, setUp, calls } of groups) {
        const what = (call: string): string => `${name}, ${protocol} ${call}`
        for (const job of setUp?.(place) ?? []) yield* succeed(guest, what("set-up"), job)
        const listed = calls(place).map((call) => ({ call, outcomes: [] as JobOutcome[] }))
        for (let round = 0; round < options.calls; round++) {
          for (const { call, outcomes } of listed) {
            outcomes.push(yield* succeed(guest, what(call.name), call.job(round)))
          }
        }
        for (const { call, outcomes } of listed) {
          const { name: callName, givenNs = 0 } = call
          if (callName === "") continue
          rows.push(latencyRow({ strategy: name, protocol, call: callName, givenNs }, outcomes))
        }
      }
      yield* guest.end
    }
    const { profile, seed, calls } = options
    for (const { protocol, measure } of MEASURED_GROUPS) {
      for (const { name: call, outcomes, givenNs } of yield* measure({ strategy, profile, seed, calls }))
        rows.push(latencyRow({ strategy: name, protocol, call, givenNs }, outcomes))
    }
  }
  return rows
})
