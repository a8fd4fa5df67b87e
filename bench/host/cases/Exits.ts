/**
 * Exits per second through the whole path: a guest instruction, #VC, the GHCB, VMGEXIT, KVM's handler, VMRUN and what
 * the guest makes of the answer. `Exits.ts <off|on> [--quick]`: without anybody at the trace points, or with one who
 * takes every line and throws it away. The answers are the same either way.
 */
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { performance } from "node:perf_hooks"
import { bareSetUp } from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { BARE_HEAP_GPA, type BareGuest, BareMachine, parseProfile } from "@vmpl-lab/lab"
import { cpuid, hlt, rdmsr } from "@vmpl-lab/vmpl"
import * as Result from "effect/Result"
import { ROOT } from "../../support/Root.ts"

const WARM_UP_EXITS = 20_000
const RUN_CHUNK = 50_000
/** IA32_TSC, which KVM intercepts. */
const MSR_TSC = 0x10

const quick = process.argv.includes("--quick")
const traced = process.argv[2] === "on"
const profile = Result.getOrThrow(
  parseProfile("profiles/epyc-9654p.json", readFileSync(`${ROOT}profiles/epyc-9654p.json`, "utf8"))
)

const run = (exits: number) => {
  const hash = createHash("sha256")
  let begin = 0
  let ms = 0
  const guest: BareGuest = {
    kind: "snp",
    boot: function* (machine) {
      yield* bareSetUp({ vcpus: 1, heapGpa: BARE_HEAP_GPA, snp: machine.vcpus === 1 })
      begin = performance.now()
      let sum = 0
      for (let i = 0; i < exits; i += 2) {
        sum = (sum + (yield cpuid(1)).hi) >>> 0
        sum = (sum + (yield rdmsr(MSR_TSC)).lo) >>> 0
      }
      ms = performance.now() - begin
      hash.update(`${sum}`)
    },
    ap: function* () {
      yield hlt()
    }
  }
  let lines = 0
  const { operations } = STRATEGIES[0]!
  const kvmTrace = (_thread: unknown, _point: unknown, text: string): void => {
    lines += text.length > 0 ? 1 : 0
  }
  const machine = new BareMachine({ guest, operations, vcpus: 1, profile, seed: 1, ...(traced ? { kvmTrace } : {}) })
  while (machine.stepMany(RUN_CHUNK)) {}
  const failure = machine.failure()
  if (failure !== null) throw new Error(failure)
  if (traced && lines < exits) throw new Error(`${lines} lines of trace for ${exits} exits`)
  return { ms, digest: hash.digest("hex").slice(0, 16) }
}

run(WARM_UP_EXITS)
const timed = quick ? 10_000 : 200_000
const { ms, digest } = run(timed)
process.stdout.write(`${JSON.stringify({ values: { exitsPerSecond: timed / (ms / 1e3) }, digest })}\n`)
