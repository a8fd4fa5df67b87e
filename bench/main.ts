/**
 * Every benchmark, one after the other: `npm run bench`, with `--quick` for a few seconds only and `--json FOLDER` to
 * keep the results as host.json and latency.json.
 */
import { spawnSync } from "node:child_process"
import { benchOptions, print } from "./support/Options.ts"
import { ROOT } from "./support/Root.ts"

const { quick, json } = benchOptions()
for (const name of ["host", "latency"]) {
  const args = [...(quick ? ["--quick"] : []), ...(json === undefined ? [] : ["--json", `${json}/${name}.json`])]
  const child = spawnSync(process.execPath, ["--conditions=source", `${ROOT}bench/${name}/main.ts`, ...args], {
    stdio: "inherit"
  })
  if (child.status !== 0) process.exit(child.status ?? 1)
  if (name === "host") print()
}
