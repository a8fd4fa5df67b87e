import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { TPM_COSTS } from "@vmpl-lab/lab"
import { expect, it } from "vitest"
import { hasSwtpm } from "./Tools.ts"

const bench = fileURLToPath(new URL("../../bench/tpm/main.ts", import.meta.url))

it.skipIf(!hasSwtpm)(
  "the measurement of TPM commands has a command for each class that is charged",
  () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ["--conditions=source", bench, "--quick"], {
      encoding: "utf8"
    })
    expect([status, stderr]).toEqual([0, ""])
    for (const name of Object.keys(TPM_COSTS)) expect(stdout).toMatch(new RegExp(` ${name} +\\d`))
  },
  60_000
)
