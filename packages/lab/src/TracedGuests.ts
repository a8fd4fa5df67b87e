import type { Strategy } from "@vmpl-lab/hv-strategies"
import { type KvmTraceSink, TracePoints } from "@vmpl-lab/hypervisor"
import type { Profile } from "@vmpl-lab/sim"
import { BARE_GUESTS, type BareGuestName, USUAL_VCPUS } from "./BareGuests.ts"
import { BareMachine } from "./BareMachine.ts"
import { builtInFirmware } from "./Compare.ts"
import { DEFAULT_SCENARIO } from "./DefaultScenario.ts"
import { Machine } from "./Machine.ts"
import { Scenario } from "./Scenario.ts"
import { svsmLaunch } from "./SvsmLaunch.ts"

const SVSM_CALLS = "svsm-calls"
const SVSM_CALLS_VCPUS = 2

/** Guests whose trace points can be printed. */
export const TRACED_GUESTS: ReadonlyArray<string> = [SVSM_CALLS, ...Object.keys(BARE_GUESTS)]

export interface TraceInput {
  /** One of TRACED_GUESTS. */
  readonly guest: string
  readonly strategy: Strategy
  readonly vcpus: number | undefined
  readonly calls: number
  readonly profile: Profile
  readonly seed: number
  readonly sink: KvmTraceSink
}

/** A machine that is about to run, with somebody listening at its trace points. */
export interface TraceRun {
  readonly cores: number
  readonly stepMany: (maxEvents: number) => boolean
  readonly failure: () => string | null
}

/** Builds the machine; nothing has happened yet. */
export const prepareTrace = (input: TraceInput): TraceRun =>
  input.guest === SVSM_CALLS ? withSvsm(input) : bare(input)

const withSvsm = ({ strategy, vcpus = SVSM_CALLS_VCPUS, calls, profile, seed, sink }: TraceInput): TraceRun => {
  const scenario = new Scenario({ ...DEFAULT_SCENARIO, vcpus, calls, boots: 1 })
  const svsm = svsmLaunch(builtInFirmware(), vcpus)
  const machine = new Machine({ strategy, scenario, profile, seed, calls: true, svsm })
  machine.kvm.trace = new TracePoints(sink)
  const { cores } = scenario.host
  return { cores, stepMany: (events) => machine.stepMany(events), failure: () => machine.failure() }
}

const bare = ({ guest: name, strategy, profile, seed, sink, ...asked }: TraceInput): TraceRun => {
  const guest = BARE_GUESTS[name as BareGuestName]()
  const vcpus = asked.vcpus ?? guest.vcpus ?? USUAL_VCPUS
  const machine = new BareMachine({ guest, operations: strategy.operations, vcpus, profile, seed, kvmTrace: sink })
  const cores = machine.platform.host.cores.length
  return { cores, stepMany: (events) => machine.stepMany(events), failure: () => machine.failure() }
}
