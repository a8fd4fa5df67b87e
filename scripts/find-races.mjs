// Finds the schedules in scenarios/svsm-races again, after the SVSM's calls have got other operations: the calls, the
// start and the mechanism that is taken away stay, schedule and violation are what the exploration finds now. Names the
// files in which it finds nothing any more, and leaves those alone. Run it with `node --conditions=source`.
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { exploreRace, replayRace } from "../test/support/raceExplorer.ts"
import { root } from "./tagged-files.mjs"

const folder = new URL("scenarios/svsm-races/", root)
let failed = false
for (const file of readdirSync(folder).sort()) {
  const { schedule, violation, ...race } = JSON.parse(readFileSync(new URL(file, folder), "utf8"))
  if (replayRace(race, schedule) === violation && replayRace({ ...race, without: "nothing" }, schedule) === null)
    continue
  const { finding } = exploreRace(race)
  if (finding === null) {
    process.stderr.write(`${file}: nothing found\n`)
    failed = true
    continue
  }
  writeFileSync(new URL(file, folder), `${JSON.stringify({ ...race, ...finding }, null, 2)}\n`)
  process.stdout.write(`${file}: ${finding.violation}\n`)
}
process.exitCode = failed ? 1 : 0
