// Builds every package: tsup writes the JavaScript, `tsc -b` the declarations (its dts step cannot: TypeScript 7 has no
// JavaScript API). Run by `npm run build`; writes only to packages/*/dist.
import { execFileSync } from "node:child_process"
import { cpSync, existsSync, readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { build } from "tsup"

const root = fileURLToPath(new URL("..", import.meta.url))
const run = (file, args) =>
  execFileSync(file, args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })

/** The commit that is built, for `vmpl-lab` to print; undefined leaves it to say "unknown". */
const commit = () => {
  try {
    return run("git", ["rev-parse", "HEAD"]).trim()
  } catch {
    return undefined
  }
}

/** Source files that become files of their own in dist: the index, and where there are any the programs. */
const entries = (folder) =>
  ["index", "main", "sweep/SweepWorker", "thread/VcpuWorker"]
    .map((name) => `${folder}/src/${name}.ts`)
    .filter(existsSync)

/** Refuses an import of another package of ours that package.json does not name: tsup would bundle a second copy. */
const declaredOnly = (manifest) => ({
  name: "declared-only",
  setup: ({ onResolve }) =>
    onResolve({ filter: /^@vmpl-lab\// }, ({ path }) =>
      path in (manifest.dependencies ?? {})
        ? { path, external: true }
        : { errors: [{ text: `${path} is not among the dependencies of ${manifest.name}` }] }
    )
})

const define = { __VMPL_LAB_COMMIT__: JSON.stringify(commit() ?? "unknown") }
for (const name of readdirSync(`${root}packages`).sort()) {
  const folder = `${root}packages/${name}`
  if (!existsSync(`${folder}/package.json`)) continue
  const manifest = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"))
  if (manifest.private === true) continue
  const entry = entries(folder)
  if (entry.length === 0) throw new Error(`${folder}/src has neither index.ts nor main.ts`)
  process.chdir(folder) // tsup takes the dependencies that it must not bundle from the package.json here
  await build({
    entry,
    outDir: `${folder}/dist`,
    format: "esm",
    target: "node22",
    splitting: true,
    dts: false,
    clean: false, // dist also holds the declarations and the state of tsc
    sourcemap: true,
    define,
    silent: true,
    esbuildPlugins: [declaredOnly(manifest)],
    esbuildOptions: (options) => {
      options.absWorkingDir = folder // esbuild remembers the directory it was loaded in
    },
    config: false
  })
}

// The built-in profiles, the scenarios and the workloads travel with the program that reads them.
for (const name of ["profiles", "scenarios", "workloads"])
  cpSync(`${root}${name}`, `${root}packages/lab/dist/${name}`, { recursive: true })

execFileSync(process.execPath, [`${root}node_modules/typescript/bin/tsc`, "-b", ...process.argv.slice(2)], {
  cwd: root,
  stdio: "inherit"
})
