import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { ComparisonJson } from "@vmpl-lab/lab"
import { vmplLab } from "../support/shell.ts"

/** A directory for one test file's results, removed by `remove`. */
export const scratch = (): { readonly path: (name: string) => string; readonly remove: () => void } => {
  const folder = mkdtempSync(join(tmpdir(), "vmpl-lab-report-"))
  return { path: (name) => join(folder, name), remove: () => rmSync(folder, { recursive: true, force: true }) }
}

/** Runs a small comparison. */
export const comparison = async (...args: ReadonlyArray<string>): Promise<ComparisonJson> => {
  const { code, out, err } = await vmplLab(["compare", "--json", "--calls", "40", "--boots", "2", ...args])
  if (code !== 0) throw new Error(err)
  return JSON.parse(out) as ComparisonJson
}

const nameOf = ({ strategy, variant }: { strategy: string; variant: string | null }): string =>
  variant === null ? strategy : `${strategy}/${variant}`

/** 101 percentiles between a result's figures, as a newer version of the tool writes them. */
const distributionOf = ({ min, p50, p90, p99, max }: ComparisonJson["results"][number]["ns"]): ReadonlyArray<number> =>
  Array.from({ length: 101 }, (_, p) => (p === 0 ? min! : p <= 50 ? p50! : p <= 90 ? p90! : p <= 99 ? p99! : max!))

/** One result of each kind that a report takes, written as files. @returns their paths */
export const everyKind = (path: (name: string) => string, json: ComparisonJson): ReadonlyArray<string> => {
  const rich = {
    ...json,
    results: json.results.map((result) => ({ ...result, distribution: distributionOf(result.ns) })),
    interrupts: json.strategies.map((one) => ({ strategy: nameOf(one), delivery: { p50: 900, p99: 4000 }, late: 2 }))
  }
  const names = json.strategies.map(nameOf)
  const sensitivity = {
    baseline: names.map((strategy) => ({ strategy, ns: 10_000 })),
    knobs: (["measured", "published", "assumed"] as const).map((basis, i) => ({
      ...{ knob: ["vmexit_sev_snp", "thread_handoff_cross_core", "userspace_exit"][i]!, low: 100, high: 900, basis },
      effects: names.map((strategy) => ({ strategy, low: 9_000 - i * 500, high: 11_000 + i * 700 }))
    }))
  }
  const sweep = [1, 2, 4, 8].map((vcpus) =>
    JSON.stringify({ parameters: { vcpus }, results: json.results.map((one) => ({ ...one, breakdown: [] })) })
  )
  writeFileSync(path("result.json"), JSON.stringify(json))
  writeFileSync(path("rich.json"), JSON.stringify(rich))
  writeFileSync(path("sensitivity.json"), JSON.stringify(sensitivity))
  writeFileSync(path("sweep.jsonl"), `${sweep.join("\n")}\n`)
  return ["rich.json", "result.json", "sensitivity.json", "sweep.jsonl"].map(path)
}
