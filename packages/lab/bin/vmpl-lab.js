#!/usr/bin/env node
// Starts the tool under a Node that can run it. In the checkout that is the workspace's own Node, on the TypeScript
// sources; in a published package it is the Node that started this file, on the built JavaScript. This file itself
// must run on older versions.
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { createRequire } from "node:module"
import { constants } from "node:os"
import { fileURLToPath } from "node:url"

const NEEDED = [22, 19]

/** Whether the Node that runs this file is new enough to run the tool. */
const isRecent = () => {
  const [major, minor] = process.versions.node.split(".").map(Number)
  return major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1])
}

/** The program of the workspace's `node` package, or else this one, or null when there is none recent enough. */
const findNode = () => {
  try {
    const program = createRequire(import.meta.url).resolve("node/bin/node")
    if (existsSync(program)) return program
  } catch {
    // Not installed: the `node` package is a convenience of the workspace.
  }
  return isRecent() ? process.execPath : null
}

const tooOld = () => {
  process.stderr.write(`vmpl-lab: Node ${process.versions.node} found, expected ${NEEDED.join(".")} or later\n`)
  process.exitCode = 1
}

const runSources = (main) => {
  const node = findNode()
  if (node === null) return tooOld()
  // Node 22 prints a warning where it strips types, and a mistake is to give exactly one line.
  const flags = ["--conditions=source", "--disable-warning=ExperimentalWarning"]
  // Compiled code kept between runs takes a third off the start; Node does without where it cannot write.
  const cache = fileURLToPath(new URL("../../../node_modules/.cache/vmpl-lab", import.meta.url))
  const env = { NODE_COMPILE_CACHE: cache, ...process.env }
  const child = spawn(node, [...flags, main, ...process.argv.slice(2)], { stdio: "inherit", env })
  // A signal to this process is meant for the tool, which leaves in its own way and by its own exit code.
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"]
  for (const signal of signals) process.on(signal, () => child.kill(signal))
  child.on("error", (error) => {
    process.stderr.write(`vmpl-lab: cannot start ${node}: ${error.message}\n`)
    process.exitCode = 1
  })
  child.on("exit", (code, signal) => {
    process.exitCode = signal === null ? (code ?? 1) : 128 + constants.signals[signal]
  })
}

const sources = fileURLToPath(new URL("../src/main.ts", import.meta.url))
if (existsSync(sources)) runSources(sources)
else if (isRecent()) await import(new URL("../dist/main.js", import.meta.url).href)
else tooOld()
