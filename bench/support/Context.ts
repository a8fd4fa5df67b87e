import { execFileSync } from "node:child_process"
import { cpus, loadavg, release, totalmem, type } from "node:os"
import { ROOT } from "./Root.ts"

/** The machine and the code that figures belong to. */
export interface Context {
  readonly date: string
  readonly cpu: string
  readonly cpus: number
  readonly memoryMib: number
  readonly system: string
  readonly node: string
  readonly v8: string
  /** Commit of the checkout; `dirty` when the code that is measured differs from it. */
  readonly commit: string
  readonly dirty: boolean
  /** Load average over 1, 5 and 15 minutes when the benchmark began. */
  readonly loadAverage: ReadonlyArray<number>
}

const git = (...args: ReadonlyArray<string>): string | null => {
  try {
    return execFileSync("git", args, { cwd: ROOT, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()
  } catch {
    return null
  }
}

/** What a reader must know to judge figures from another machine. */
export const context = (): Context => ({
  date: new Date().toISOString().slice(0, 10),
  cpu: cpus()[0]?.model ?? "unknown",
  cpus: cpus().length,
  memoryMib: Math.round(totalmem() / 2 ** 20),
  system: `${type()} ${release()}`,
  node: process.version,
  v8: process.versions.v8,
  commit: git("rev-parse", "HEAD") ?? "unknown",
  dirty: (git("status", "--porcelain", "--", "packages/*/src", "packages/*/bin", "profiles") ?? "") !== "",
  loadAverage: loadavg().map((load) => Math.round(load * 100) / 100)
})
