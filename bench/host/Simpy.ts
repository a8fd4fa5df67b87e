import { spawnSync } from "node:child_process"
import { ROOT } from "../support/Root.ts"
import type { Observation } from "./Observe.ts"

/** Debian's Python, which sees Debian's modules whatever other Python comes first in the path. */
const PYTHON = "/usr/bin/python3"

/** Version of SimPy, for the context of results; null where it is missing. */
export const simpyVersion = (): string | null => {
  const question = "import SimPy.Simulation, importlib.metadata as m; print('SimPy', m.version('simpy'))"
  const child = spawnSync(PYTHON, ["-c", question], { encoding: "utf8" })
  return child.status === 0 ? child.stdout.trim() : null
}

/** Runs the hand-off model in SimPy. */
export const observeSimpy = (args: ReadonlyArray<string>): Observation => {
  const child = spawnSync(PYTHON, [`${ROOT}bench/host/simpy/handoff.py`, ...args], { encoding: "utf8" })
  if (child.status !== 0) {
    process.stderr.write(`bench: the hand-off model in SimPy failed\n${child.stderr ?? String(child.error)}\n`)
    process.exit(1)
  }
  return JSON.parse(child.stdout)
}
