import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"

// The build replaces this name by the commit it was made from; in the checkout it does not exist.
declare const __VMPL_LAB_COMMIT__: string | undefined

/** Version of this package. */
export const packageVersion = (): string => {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"))
  return typeof manifest === "object" && manifest !== null && "version" in manifest ? String(manifest.version) : "0.0.0"
}

/**
 * Commit of the running code: embedded by the build, else asked from the checkout that holds this file. "unknown"
 * outside a checkout, without git, or before the first commit.
 */
export const codeCommit = (): string => {
  if (typeof __VMPL_LAB_COMMIT__ === "string") return __VMPL_LAB_COMMIT__
  try {
    const out = execFileSync("git", ["rev-parse", "--show-prefix", "HEAD"], {
      cwd: dirname(fileURLToPath(import.meta.url)),
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      // A hook or an alias may have pointed git elsewhere.
      env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("GIT_")))
    })
    const [prefix, commit] = out.trim().split("\n")
    // Installed below somebody else's checkout, the answer would be that project's commit.
    return prefix?.startsWith("packages/lab/") === true && commit !== undefined ? commit : "unknown"
  } catch {
    return "unknown"
  }
}
