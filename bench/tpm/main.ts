/**
 * What a TPM in software takes for its commands: CPU time of a swtpm on this machine, measured, by the classes that the
 * model of the vTPM charges (`packages/lab/src/tpm/TpmCosts.ts`). CPU time, not wall time: sockets and other programs
 * have no part in it, and what an unknown command takes, which is the way there and back, is taken off. Run it with
 * `npm run bench:tpm`, options `--quick` and `--json FILE`.
 */
import { execFileSync } from "node:child_process"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { commandName, flushContext, responseCode, startupClear, swtpm, type TpmBackEnd } from "@vmpl-lab/lab"
import * as Effect from "effect/Effect"
import { context } from "../support/Context.ts"
import { benchOptions, print } from "../support/Options.ts"
import { type Statistics, statistics } from "../support/Statistics.ts"
import { columns } from "../support/Units.ts"
import {
  contextSave,
  createdHandle,
  createEccKey,
  createRsaKey,
  fullSelfTest,
  getRandom,
  nvDefine,
  nvWrite,
  pcrExtend,
  sign,
  unknownCommand
} from "./Commands.ts"

const { quick, json } = benchOptions()
const OBSERVATIONS = quick ? 3 : 15

/** One kind of command. An observation is the mean of so many in a row. */
interface Case {
  readonly name: string
  /** Class of `TPM_COSTS` that it stands for. */
  readonly costClass: string
  readonly repeats: number
  readonly command: (index: number) => Uint8Array
  /** What is left behind by each response and must go. */
  readonly leaves?: (response: Uint8Array) => number
}

/** The process that this one has started. */
const childPid = (): number => {
  const [pid] = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, "utf8").trim().split(" ")
  return Number(pid)
}

/** CPU time of all threads of a process, ns. */
const cpuNs = (pid: number): number =>
  readdirSync(`/proc/${pid}/task`).reduce(
    (sum, thread) => sum + Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]),
    0
  )

const succeed = (tpm: TpmBackEnd, command: Uint8Array) =>
  Effect.flatMap(tpm.send(command), (response) => {
    const code = responseCode(response)
    return code === 0
      ? Effect.succeed(response)
      : Effect.fail(new Error(`the TPM answers 0x${code.toString(16)} to ${commandName(command)}`))
  })

const observe = Effect.fnUntraced(function* (tpm: TpmBackEnd, pid: number, one: Case, round: number) {
  let ns = 0
  for (let i = 0; i < one.repeats; i++) {
    const command = one.command(round * one.repeats + i)
    const before = cpuNs(pid)
    const response = yield* one.name === "unknown command" ? tpm.send(command) : succeed(tpm, command)
    ns += cpuNs(pid) - before
    if (one.leaves !== undefined) yield* succeed(tpm, flushContext(one.leaves(response)))
  }
  return ns / one.repeats
})

const measure = Effect.gen(function* () {
  const tpm = yield* swtpm()
  const pid = childPid()
  yield* succeed(tpm, startupClear())
  // An algorithm's first use would test it.
  yield* succeed(tpm, fullSelfTest())
  const ecc = createdHandle(yield* succeed(tpm, createEccKey()))
  const rsa = createdHandle(yield* succeed(tpm, createRsaKey(0)))
  yield* succeed(tpm, nvDefine())
  const cases: ReadonlyArray<Case> = [
    { name: "unknown command", costClass: "way there and back", repeats: 100, command: unknownCommand },
    { name: "TPM2_GetRandom, 16 bytes", costClass: "state", repeats: 100, command: getRandom },
    { name: "TPM2_PCR_Extend, SHA-256", costClass: "state", repeats: 100, command: pcrExtend },
    { name: "TPM2_NV_Write, 32 bytes", costClass: "nv", repeats: 50, command: nvWrite },
    { name: "TPM2_ContextSave, ECC key", costClass: "object", repeats: 50, command: () => contextSave(ecc) },
    { name: "TPM2_Sign, P-256", costClass: "ecc", repeats: 50, command: () => sign(ecc) },
    { name: "TPM2_Sign, RSA-2048", costClass: "rsa", repeats: 20, command: () => sign(rsa) },
    {
      name: "TPM2_CreatePrimary, RSA-2048",
      costClass: "rsa key",
      repeats: quick ? 1 : 10,
      command: (index) => createRsaKey(index + 1),
      leaves: createdHandle
    }
  ]
  const samples = cases.map((): Array<number> => [])
  for (let round = 0; round < OBSERVATIONS; round++) {
    // Forwards and backwards in turn, so that no case is always the one after another.
    const order = round % 2 === 0 ? [...cases.keys()] : [...cases.keys()].reverse()
    for (const i of order) samples[i]!.push(yield* observe(tpm, pid, cases[i]!, round))
  }
  return cases.map(({ name, costClass }, i) => ({ name, costClass, cpuNs: statistics(samples[i]!) }))
})

const version = execFileSync("swtpm", ["--version"], { encoding: "utf8" }).split("\n")[0]!.trim()
const machine = context()
const rows = await Effect.runPromise(Effect.scoped(measure))
const base = rows[0]!.cpuNs.median
const us = (ns: number): string => (ns / 1e3).toFixed(1)
const spread = ({ interval }: Statistics): string =>
  interval === null ? "-" : `${us(interval[0])} to ${us(interval[1])}`

print(`CPU time of ${version} per command in us, measured on ${machine.cpu}; load ${machine.loadAverage[0]}.`)
print()
print(
  columns([
    ["", "class", "median", "95 % interval", "without the way"],
    ...rows.map(({ name, costClass, cpuNs }) => [
      name,
      costClass,
      us(cpuNs.median),
      spread(cpuNs),
      us(cpuNs.median - base)
    ])
  ])
)
if (json !== undefined) {
  const results = rows.map((row) => ({ ...row, netNs: row.cpuNs.median - base }))
  const result = { kind: "TPM commands, measured", quick, program: version, context: machine, results }
  writeFileSync(json, `${JSON.stringify(result, null, 2)}\n`)
}
