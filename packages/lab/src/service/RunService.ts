import type { Strategy } from "@vmpl-lab/hv-strategies"
import type { Profile } from "@vmpl-lab/sim"
import * as Effect from "effect/Effect"
import { RunFailed } from "../RunFailed.ts"
import type { ClientLevels } from "../tpm/ClientWork.ts"
import { GuestMachine, type JobOutcome } from "../tpm/GuestMachine.ts"
import { serviceGuest } from "../tpm/ServiceGuest.ts"
import type { Service } from "./Define.ts"
import { hostService } from "./Handlers.ts"
import { exampleJob, Fuzzer, resultName } from "./ServiceJobs.ts"

/** One call of a service under one strategy. Times are medians in virtual ns; the parts belong to the median call. */
export interface ServiceLatency {
  readonly strategy: string
  /** The protocol, or the service's name. */
  readonly protocol: string
  readonly call: string
  readonly samples: number
  /** What the SVSM answered, each result once, in the order in which they came. */
  readonly results: ReadonlyArray<string>
  readonly ns: number
  readonly switchNs: number
  readonly serviceNs: number
  /** Of these, what is given as one number: a TPM's work, a handler's `costNs`. */
  readonly givenNs: number
}

/** What became of random calls. */
export interface FuzzRecord {
  readonly strategy: string
  readonly calls: number
  readonly results: { readonly [result: string]: number }
}

export interface ServiceRun {
  readonly latency: ReadonlyArray<ServiceLatency>
  readonly fuzz: ReadonlyArray<FuzzRecord>
}

export interface RunServiceOptions {
  readonly service: Service
  readonly strategies: ReadonlyArray<Strategy>
  readonly profile: Profile
  readonly seed: number
  /** Calls of each kind under each strategy. */
  readonly calls: number
  /** Random calls under each strategy. */
  readonly fuzz: number
  /** Where the caller is and where the service; VMPL2 and VMPL0 when left out. */
  readonly levels?: ClientLevels
}

/** One call: its result, and its time with the part that was switches. */
export type CallTime = Pick<JobOutcome, "result" | "ns" | "switchNs">

/** The sample in the middle by its time. */
export const medianOutcome = <A extends Pick<JobOutcome, "ns">>(outcomes: ReadonlyArray<A>): A =>
  [...outcomes].sort((a, b) => a.ns - b.ns)[Math.ceil(outcomes.length / 2) - 1]!

/** Where a job's time went, as a row. */
export const latencyRow = (
  what: Pick<ServiceLatency, "strategy" | "protocol" | "call" | "givenNs">,
  outcomes: ReadonlyArray<CallTime>
): ServiceLatency => {
  const { ns, switchNs } = medianOutcome(outcomes)
  const results = [...new Set(outcomes.map(({ result }) => resultName(result)))]
  const { strategy, protocol, call, givenNs } = what
  const serviceNs = ns - switchNs
  return { strategy, protocol, call, samples: outcomes.length, results, ns, switchNs, serviceNs, givenNs }
}

/** Runs every call of a service with its example under each strategy, then random calls. */
export const runService = Effect.fnUntraced(function* (options: RunServiceOptions) {
  const { service, profile, seed } = options
  const latency: Array<ServiceLatency> = []
  const fuzz: Array<FuzzRecord> = []
  for (const strategy of options.strategies) {
    const { name, launched } = serviceGuest(strategy, options.levels)
    const { service: served, answerer, serveCall } = hostService(service, seed)
    const guest = new GuestMachine({
      ...launched,
      profile,
      seed,
      services: launched.levels.serviceVmpl === 0 ? [served] : [],
      answerers: [answerer],
      levelCalls: new Map([[service.protocol, serveCall]])
    })
    yield* guest.boot
    for (const [key, call] of Object.entries(service.calls)) {
      const job = exampleJob(service, call, guest.buffers[0]!)
      if (job === null)
        return yield* new RunFailed({ why: `${service.name}, ${key}: its buffers need more than two pages` })
      const outcomes: Array<JobOutcome> = []
      for (let i = 0; i < options.calls; i++) outcomes.push(yield* guest.run(job))
      const { costNs: givenNs } = call
      latency.push(latencyRow({ strategy: name, protocol: service.name, call: key, givenNs }, outcomes))
    }
    if (options.fuzz > 0) {
      const fuzzer = new Fuzzer(service, seed, launched.svsm.parameters, guest.buffers)
      const results: { [result: string]: number } = {}
      for (let i = 0; i < options.fuzz; i++) {
        const { result } = yield* guest.run(fuzzer.next())
        results[resultName(result)] = (results[resultName(result)] ?? 0) + 1
      }
      fuzz.push({ strategy: name, calls: options.fuzz, results })
    }
    yield* guest.end
  }
  return { latency, fuzz } satisfies ServiceRun as ServiceRun
})
