import { existsSync, readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

/** A text file of the repository. */
export interface SourceFile {
  /** Path from the root, with forward slashes. */
  readonly path: string
  readonly text: string
}

/** What a package.json says, as far as the house rules look at it. */
export interface Manifest {
  readonly path: string
  readonly name: string
  readonly dependencies: { readonly [name: string]: string }
  readonly devDependencies: { readonly [name: string]: string }
}

const root = fileURLToPath(new URL("../../", import.meta.url))
const SKIPPED = new Set([".git", "node_modules", "dist", "coverage", "package-lock.json"])
const TEXT = /\.(?:ts|mjs|js|json|md)$|^LICENSE$|^run$|^\.gitignore$/

const walk = (folder: string): ReadonlyArray<string> =>
  readdirSync(`${root}${folder}`, { withFileTypes: true }).flatMap((entry) => {
    if (SKIPPED.has(entry.name)) return []
    const path = `${folder}${entry.name}`
    if (entry.isDirectory()) return walk(`${path}/`)
    return TEXT.test(entry.name) ? [path] : []
  })

/** Every text file that belongs to the project, sorted by path. */
export const sourceFiles = (): ReadonlyArray<SourceFile> =>
  walk("")
    .toSorted()
    .map((path) => ({ path, text: readFileSync(`${root}${path}`, "utf8") }))

/** One text file, or the empty string. */
export const textOf = (path: string): string =>
  existsSync(`${root}${path}`) ? readFileSync(`${root}${path}`, "utf8") : ""

/** The root's package.json and those of the packages. */
export const manifests = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Manifest> =>
  files
    .filter(({ path }) => /^(?:packages\/[^/]+\/)?package\.json$/.test(path))
    .map(({ path, text }) => {
      const { name, dependencies = {}, devDependencies = {} } = JSON.parse(text)
      return { path, name, dependencies, devDependencies }
    })
