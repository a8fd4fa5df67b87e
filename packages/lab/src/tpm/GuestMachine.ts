import { blockOf, CLIENT_PAGES, type ClientJob, type ClientPort, type ClientReport } from "@vmpl-lab/guest"
import type { Strategy } from "@vmpl-lab/hv-strategies"
import type { Profile } from "@vmpl-lab/sim"
import type { Protocol, ServeCall } from "@vmpl-lab/svsm"
import { OutsidePort } from "@vmpl-lab/vmpl"
import * as Effect from "effect/Effect"
import { Machine, type MachineOptions } from "../Machine.ts"
import { RunFailed } from "../RunFailed.ts"
import type { Scenario } from "../Scenario.ts"
import type { SvsmLaunch } from "../SvsmLaunch.ts"
import { type ClientLevels, clientWork, PLAIN_LEVELS } from "./ClientWork.ts"

/** Events between two pauses: a run can be interrupted there. */
const EVENTS_PER_CHUNK = 50_000

/** Answers one of the SVSM's questions to the outside. */
export interface OutsideAnswerer {
  readonly port: { readonly open: unknown }
  /** Called while a question is open; answers it. */
  readonly answer: Effect.Effect<void, RunFailed>
}

/** What a guest for somebody outside of it is made of. */
export interface GuestMachineOptions extends Pick<MachineOptions, "certificates" | "vmConfig"> {
  readonly strategy: Strategy
  readonly scenario: Scenario
  readonly profile: Profile
  readonly seed: number
  readonly svsm: SvsmLaunch
  readonly services: ReadonlyArray<Protocol>
  readonly answerers: ReadonlyArray<OutsideAnswerer>
  /** From which level jobs are done, and where services are; the launch has to be one for it. */
  readonly levels?: ClientLevels
  /** What a program at VMPL1 serves, by protocol, where services are there. */
  readonly levelCalls?: ReadonlyMap<number, ServeCall>
}

/** A job's report, and how much of its time went into switching between VMPLs. */
export interface JobOutcome extends ClientReport {
  readonly switchNs: number
}

/** A guest at its level that does one job after the other, for whoever asks: TPM commands, calls of the SVSM. */
export class GuestMachine {
  readonly machine: Machine
  /** Pages of the guest's that jobs may use as buffers. */
  readonly buffers: ReadonlyArray<number>
  readonly #client: ClientPort = new OutsidePort()
  readonly #answerers: ReadonlyArray<OutsideAnswerer>

  constructor(options: GuestMachineOptions) {
    const { answerers, svsm, levels = PLAIN_LEVELS, levelCalls } = options
    const work = clientWork(this.#client, levels, levelCalls)
    this.#answerers = answerers
    this.machine = new Machine({
      ...options,
      calls: true,
      work,
      guestVmpl: svsm.parameters.guestVmpl,
      outside: [this.#client, ...answerers.map(({ port }) => port)]
    })
    const first = blockOf(svsm, 0) + CLIENT_PAGES.FIRST
    this.buffers = Array.from({ length: CLIENT_PAGES.COUNT }, (_, page) => first + page * 0x1000)
  }

  /** From power-on until the guest asks for its first job. */
  readonly boot: Effect.Effect<void, RunFailed> = Effect.suspend(() => this.#drive())

  /** One job, from the guest's request for it to its request for the next. */
  run(job: ClientJob): Effect.Effect<JobOutcome, RunFailed> {
    return Effect.suspend(() => {
      const { ns } = this.machine.meter.roundTrip
      const before = ns.length
      this.#client.answer({ job })
      return Effect.map(this.#drive(), () => {
        const switchNs = ns.slice(before).reduce((sum, each) => sum + each, 0)
        return { ...this.#client.open!.ask!, switchNs }
      })
    })
  }

  /** No more jobs: the guest comes to its end. */
  readonly end: Effect.Effect<void, RunFailed> = Effect.suspend(() => {
    this.#client.answer({ job: null })
    return this.#drive()
  })

  #drive(): Effect.Effect<void, RunFailed> {
    const { machine } = this
    const answerers = this.#answerers
    const client = this.#client
    return Effect.gen(function* () {
      for (;;) {
        if (client.open !== undefined) return
        const asked = answerers.find(({ port }) => port.open !== undefined)
        if (asked !== undefined) yield* asked.answer
        else if (!machine.stepMany(EVENTS_PER_CHUNK)) break
        yield* Effect.yieldNow
      }
      const failure = machine.failure()
      if (failure !== null) return yield* new RunFailed({ why: failure })
    })
  }
}
