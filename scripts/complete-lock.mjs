// Completes package-lock.json: `npm ci` refuses a lock file without the binaries of other platforms, and a registry that
// serves only one platform's leaves them out when the lock file is made. Entries come from the package that wants them;
// hashes of packages that were not fetched are not known, so these entries have none. Run after `npm install`:
// `node scripts/complete-lock.mjs`, or with `--check` to be told only.
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const file = fileURLToPath(new URL("../package-lock.json", import.meta.url))
const lock = JSON.parse(readFileSync(file, "utf8"))
const CPUS = ["arm64", "arm", "x64", "ia32", "loong64", "ppc64", "riscv64", "s390x"]
const SYSTEMS = ["aix", "android", "darwin", "freebsd", "linux", "netbsd", "openbsd", "openharmony", "sunos", "win32"]

/** Places at which Node would look for a package that the one at `from` wants. */
const places = (from, name) => {
  const found = []
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf("/node_modules/")))) {
    found.push(`${folder === "" ? "" : `${folder}/`}node_modules/${name}`)
    if (folder === "" || !folder.includes("node_modules/")) break
  }
  return [...found, `node_modules/${name}`]
}

/** Platform fields of a package whose name ends in one, such as `rollup-linux-arm64-musl`. */
const platformOf = (name) => {
  const parts = name.split("/").at(-1).split("-")
  const os = parts.find((part) => SYSTEMS.includes(part))
  const cpu = parts.find((part) => CPUS.includes(part))
  if (os === undefined || cpu === undefined) return null
  const last = parts.at(-1)
  const libc = os !== "linux" ? null : last.startsWith("musl") ? "musl" : last.startsWith("gnu") ? "glibc" : null
  return { cpu: [cpu], ...(libc === null ? {} : { libc: [libc] }), os: [os] }
}

const added = []
for (const [from, { optionalDependencies = {} }] of Object.entries(lock.packages)) {
  const present = Object.keys(optionalDependencies).map((name) => places(from, name).find((at) => at in lock.packages))
  const sibling = lock.packages[present.find((at) => at !== undefined)] ?? {}
  for (const [name, version] of Object.entries(optionalDependencies)) {
    if (places(from, name).some((at) => at in lock.packages)) continue
    const platform = platformOf(name)
    if (platform === null || !/^\d+\.\d+\.\d+/.test(version))
      throw new Error(`${from}: cannot complete ${name}@${version}`)
    const { dev, engines, license } = sibling
    const { cpu, ...rest } = platform
    lock.packages[`node_modules/${name}`] = {
      version,
      cpu,
      ...(dev === undefined ? {} : { dev }),
      ...(rest.libc === undefined ? {} : { libc: rest.libc }),
      ...(license === undefined ? {} : { license }),
      optional: true,
      os: rest.os,
      ...(engines === undefined ? {} : { engines })
    }
    added.push(`${name}@${version}`)
  }
}

if (added.length > 0 && process.argv.includes("--check")) {
  process.stderr.write(`package-lock.json: ${added.length} optional packages are missing, such as ${added[0]}\n`)
  process.exitCode = 1
} else if (added.length > 0) {
  const sorted = Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, "en"))
  lock.packages = Object.fromEntries(sorted)
  writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
  process.stdout.write(`package-lock.json: added ${added.length} optional packages\n`)
}
