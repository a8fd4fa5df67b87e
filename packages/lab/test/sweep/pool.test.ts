import { rmSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { loadPlan } from "../../src/sweep/GridFile.ts"
import { runSweep } from "../../src/sweep/RunSweep.ts"
import { timeText } from "../../src/sweep/SweepProgress.ts"
import { newFolder, text, write } from "./support.ts"

let folder = ""
beforeAll(() => {
  folder = newFolder()
  write(folder, "grid.json", { seed: [1, 2, 3, 4, 5, 6] })
})
afterAll(() => rmSync(folder, { recursive: true }))

const OUTCOME = '{ launchDigest: "a", stateDigest: "b", guestDigest: null, results: [] }'

/** Runs the grid with workers whose program answers each job, of number `seed`, as the text says. */
const sweepWith = async (name: string, program: string, jobs = 1) => {
  const answer = `const answer = () => parentPort.postMessage({ index: job.index, outcome: ${OUTCOME} })`
  write(
    folder,
    `${name}.mjs`,
    `import { parentPort } from "node:worker_threads"
     parentPort.on("message", (job) => { ${answer}\n${program} })`
  )
  const progress: Array<number> = []
  const input = {
    out: join(folder, `${name}.jsonl`),
    shard: { part: 1, parts: 1 },
    jobs,
    force: false,
    worker: pathToFileURL(join(folder, `${name}.mjs`)),
    onProgress: (done: number) => progress.push(done)
  }
  const result = await Effect.runPromise(
    loadPlan(join(folder, "grid.json"), "c", "1").pipe(
      Effect.flatMap((plan) => runSweep({ ...input, plan })),
      Effect.match({ onFailure: (error) => error, onSuccess: (done) => done }),
      Effect.provide(NodeServices.layer)
    )
  )
  const seeds = text(folder, `${name}.jsonl`)
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line).parameters.seed)
  return { result, seeds, progress }
}

describe("workers that fail end the sweep with a clear message, and nothing that was done is lost", () => {
  it.each([
    ["throws", "throw new Error('no memory')", /^a worker thread failed at point 3, \{"seed":4\}: no memory$/],
    ["exits", "process.exit(7)", /^a worker thread ended with code 7 at point 3, \{"seed":4\}$/],
    [
      "reports",
      "return parentPort.postMessage({ index: job.index, failure: 'the guest hangs' })",
      /^point 3, \{"seed":4\}: the guest hangs$/
    ]
  ])("%s", async (name, failure, says) => {
    const { result, seeds } = await sweepWith(name, `if (job.seed === 4) { ${failure} } answer()`)
    expect(result).toMatchObject({ _tag: "RunFailed", why: expect.stringMatching(says) })
    expect(seeds).toEqual([1, 2, 3])
    const again = await sweepWith(name, "answer()")
    expect(again.result).toEqual({ found: 3, run: 3, torn: false })
    expect(again.progress).toEqual([3, 4, 5, 6])
    expect(again.seeds).toEqual([1, 2, 3, 4, 5, 6])
  })
})

it("lines come in the order of completion, and in the end in that of the grid", async () => {
  // The first job answers only long after a second thread has had time for all others.
  const { seeds, result } = await sweepWith("slow", "if (job.seed === 1) setTimeout(answer, 300); else answer()", 2)
  expect(result).toEqual({ found: 0, run: 6, torn: false })
  expect(seeds).toEqual([1, 2, 3, 4, 5, 6])
})

it.each([
  [0.2, "1 s"],
  [89, "89 s"],
  [91, "2 min"],
  [5_340, "89 min"],
  [12_000, "3 h 20 min"]
])("%f seconds left read as %s", (seconds, says) => expect(timeText(seconds)).toBe(says))
