/**
 * Speed of the simulator under one strategy: `RoundTrip.ts <key[/variant]> [--quick]`. After a warm-up run the default guest
 * boots, and the clock starts when its last vCPU is up, so that neither launch nor boot counts. Everything that belongs
 * to a call does: the guest's side, the host's side and the SVSM's.
 */
import { readFileSync } from "node:fs"
import { performance } from "node:perf_hooks"
import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { builtInFirmware, DEFAULT_SCENARIO, Machine, parseProfile, Scenario, svsmLaunch } from "@vmpl-lab/lab"
import * as Result from "effect/Result"
import { ROOT } from "../../support/Root.ts"

const WARM_UP_CALLS = 2_000
/** Small, so that the clock starts soon after the last vCPU is up. */
const BOOT_CHUNK = 20
const RUN_CHUNK = 50_000

const quick = process.argv.includes("--quick")
const strategy = STRATEGIES.find((one) => strategyName(one) === process.argv[2])
if (strategy === undefined) throw new Error(`no strategy ${process.argv[2]}`)
const profile = Result.getOrThrow(
  parseProfile("profiles/epyc-9654p.json", readFileSync(`${ROOT}profiles/epyc-9654p.json`, "utf8"))
)

const run = (calls: number) => {
  const scenario = new Scenario({ ...DEFAULT_SCENARIO, calls })
  const svsm = svsmLaunch(builtInFirmware(), scenario.vcpus)
  const machine = new Machine({ strategy, scenario, profile, seed: 1, calls: true, svsm })
  while (machine.log.started < scenario.vcpus && machine.stepMany(BOOT_CHUNK)) {}
  const trips = machine.meter.roundTrip.ns.length
  const events = machine.host.events
  const begin = performance.now()
  const cpuBegin = process.cpuUsage()
  while (machine.stepMany(RUN_CHUNK)) {}
  const ms = performance.now() - begin
  const { user, system } = process.cpuUsage(cpuBegin)
  const failure = machine.failure()
  if (failure !== null) throw new Error(failure)
  return {
    ms,
    cpuUs: user + system,
    trips: machine.meter.roundTrip.ns.length - trips,
    events: machine.host.events - events,
    machine
  }
}

run(quick ? 200 : WARM_UP_CALLS)
const { ms, cpuUs, trips, events, machine } = run(quick ? 1_000 : 20_000)
const values = {
  usPerRoundTrip: (ms * 1e3) / trips,
  cpuUsPerRoundTrip: cpuUs / trips,
  eventsPerSecond: events / (ms / 1e3)
}
process.stdout.write(`${JSON.stringify({ values, digest: machine.log.digest() })}\n`)
