// @section 5
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { readInputFile } from "./InputFile.ts"
import type { Explanation, Reply } from "./trace/index.ts"
import { ruleExplainer, TraceReplay } from "./trace/index.ts"

/** One step of a scenario: who does what, and what the machine must answer. */
export interface ScenarioStep {
  /** H the hypervisor, G0 to G3 guest software at that VMPL. */
  readonly who: string
  readonly what: string
  readonly reply: Reply
}

/** An attack or a corner of the architecture as a trace, with its expected outcome. */
export interface TraceScenario {
  readonly id: string
  readonly title: string
  /** `stopped`: the attack fails; `succeeds`: the architecture does not stop it; `works`: no attack, but to be known. */
  readonly outcome: "stopped" | "succeeds" | "works"
  readonly end: string
  readonly source: string
  /** The trace holds operations on memory contents. */
  readonly memory?: boolean
  readonly steps: ReadonlyArray<ScenarioStep>
}

/** A step as it was played. */
export interface PlayedStep extends ScenarioStep {
  readonly actual: Reply
  readonly explain: Explanation | null
  readonly asExpected: boolean
}

// Beside the bundle in a published package, in the checkout's folder otherwise.
const FOLDERS = ["./scenarios/", "../../../scenarios/"].map((folder) => fileURLToPath(new URL(folder, import.meta.url)))

const folder = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  for (const path of FOLDERS) if (yield* fs.exists(`${path}index.json`)) return path
  return yield* Effect.die(new Error("the scenarios are missing from this installation"))
})

/** All scenarios, in the order in which they are listed. */
export const loadScenarios = Effect.gen(function* () {
  const bytes = yield* readInputFile(`${yield* folder}index.json`, 1 << 20)
  return JSON.parse(new TextDecoder().decode(bytes)) as ReadonlyArray<TraceScenario>
})

/** The trace of a scenario, as it can be given to `vmpl-lab replay`. */
export const loadTrace = Effect.fn("loadTrace")(function* ({ id }: TraceScenario) {
  return yield* readInputFile(`${yield* folder}${id}.jsonl`, 1 << 20)
})

/** Plays a scenario's trace and compares each reply with what the scenario says. */
export const playScenario = (scenario: TraceScenario, trace: Uint8Array): ReadonlyArray<PlayedStep> => {
  const replay = new TraceReplay({ explainer: ruleExplainer, memory: scenario.memory ?? false })
  const { out, error } = replay.feed(trace)
  if (error !== null) throw new Error(`scenario ${scenario.id}: ${error}`)
  const replies = out.trim().split("\n").slice(1)
  if (replies.length !== scenario.steps.length)
    throw new Error(`scenario ${scenario.id}: ${replies.length} replies for ${scenario.steps.length} steps`)
  return scenario.steps.map((step, i) => {
    const { explain, ...actual } = JSON.parse(replies[i]!)
    return { ...step, actual, explain, asExpected: JSON.stringify(actual) === JSON.stringify(step.reply) }
  })
}
