/** The services of examples/services: files as a user writes them. */
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { serviceTrouble } from "@vmpl-lab/lab"
import { Ajv2020 } from "ajv/dist/2020.js"
import { describe, expect, it } from "vitest"
import derivedKeys from "../../examples/services/derived-keys.ts"
import { vmplLab } from "../support/shell.ts"

const { out: schema } = await vmplLab(["schema", "service"])
const isService = new Ajv2020({ strict: true }).compile(JSON.parse(schema))

const folder = fileURLToPath(new URL("../../examples/services/", import.meta.url))

describe.each(readdirSync(folder))("examples/services/%s", (file) => {
  it("serves its examples under every strategy, and answers random calls", { timeout: 60_000 }, async () => {
    const args = ["service", "run", `${folder}${file}`, "--calls", "2", "--fuzz", "100", "--json"]
    const { code, out, err } = await vmplLab(args)
    expect([code, err]).toEqual([0, ""])
    const printed = JSON.parse(out)
    expect([isService(printed), isService.errors]).toEqual([true, null])
    const { latency, fuzz } = printed
    for (const { results } of latency) expect(results).toEqual(["SUCCESS"])
    expect(fuzz.map(({ strategy }: { strategy: string }) => strategy)).toEqual(STRATEGIES.map(strategyName))
    for (const { results } of fuzz) expect(results).toEqual(fuzz[0].results)
  })
})

it("derived-keys is refused at VMPL1, as it asks the AMD-SP under the SVSM's key", async () => {
  expect(serviceTrouble(derivedKeys)).toBeUndefined()
  const path = `${folder}derived-keys.ts`
  const { code, out, err } = await vmplLab(["service", "run", path, "--service-vmpl", "1", "--vmpl", "3"])
  const why = "calls.derive.uses: firmware, but the SVSM's key is not for VMPL1 (--service-vmpl 1)"
  expect([code, out, err]).toEqual([2, "", `vmpl-lab: ${path}: ${why}\n`])
})
