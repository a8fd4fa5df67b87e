/**
 * A large guest: all four levels of each vCPU in use, and 200 calls of VMPL3 each, a part of them nested.
 * `LargeGuest.ts <vcpus>`. Everything counts from the empty machine on: launch, boot of all levels, calls.
 */
import { readFileSync } from "node:fs"
import { performance } from "node:perf_hooks"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { builtInFirmware, Machine, parseProfile, parseScenario, svsmLaunch, workOf } from "@vmpl-lab/lab"
import * as Result from "effect/Result"
import { ROOT } from "../../support/Root.ts"

const CALLS_EACH = 200
const RUN_CHUNK = 50_000
const SEED = 1

const vcpus = Number(process.argv[2])
const read = (file: string): string => readFileSync(`${ROOT}${file}`, "utf8")
const parts = { ...JSON.parse(read("workloads/four-levels.json")), vcpus, calls: CALLS_EACH, boots: 1 }
const scenario = Result.getOrThrow(parseScenario("four-levels.json", JSON.stringify(parts)))
const profile = Result.getOrThrow(parseProfile("epyc-9654p.json", read("profiles/epyc-9654p.json")))
const strategy = STRATEGIES[0]!

const begin = performance.now()
const cpuBegin = process.cpuUsage()
const svsm = svsmLaunch(builtInFirmware(), vcpus, workOf(scenario, SEED).needs)
const machine = new Machine({ strategy, scenario, profile, seed: SEED, calls: true, svsm })
while (machine.stepMany(RUN_CHUNK)) {}
const seconds = (performance.now() - begin) / 1e3
const { user, system } = process.cpuUsage(cpuBegin)
const failure = machine.failure()
if (failure !== null) throw new Error(failure)

const values = {
  seconds,
  cpuSeconds: (user + system) / 1e6,
  eventsPerSecond: machine.host.events / seconds,
  peakMiB: process.resourceUsage().maxRSS / 1024
}
process.stdout.write(`${JSON.stringify({ values, digest: machine.log.digest() })}\n`)
