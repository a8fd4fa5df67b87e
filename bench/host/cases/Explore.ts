/**
 * The explorer of the small RMP: states per second, and memory per state. `Explore.ts [--quick]` (quick: without one
 * check, so that it ends early).
 */
import { performance } from "node:perf_hooks"
import { Explorer } from "@vmpl-lab/lab"

const quick = process.argv.includes("--quick")

// Compiles the functions before the clock starts.
new Explorer({ without: "Mutable" }).run()

const before = process.memoryUsage.rss()
const begin = performance.now()
const explorer = new Explorer(quick ? { without: "Mutable" } : {})
const { states, transitions, depth } = explorer.run()
const seconds = (performance.now() - begin) / 1e3
// The explorer is still held: what it remembers is in these bytes, and garbage that was not collected yet.
const bytes = process.memoryUsage.rss() - before
const values = { statesPerSecond: states / seconds, bytesPerState: bytes / states }
process.stdout.write(`${JSON.stringify({ values, digest: `${states} ${transitions} ${depth}` })}\n`)
