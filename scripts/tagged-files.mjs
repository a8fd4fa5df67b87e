// What the generated tables in docs/ have in common: files that carry tags in comments, and writing or checking a table.
import { readdirSync, readFileSync, writeFileSync } from "node:fs"

export const root = new URL("../", import.meta.url)

/** Files below a folder, sorted, without what is built. */
const filesIn = (folder) =>
  readdirSync(new URL(folder, root), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => `${entry.parentPath}/${entry.name}`.slice(root.pathname.length))
    .filter((path) => !/\/(node_modules|dist)\//.test(path))
    .sort()

/**
 * The sources and tests with the tags that a pattern finds, comma-separated lists taken apart. A tag that is not known is
 * a mistake.
 * @returns pairs of path and tags
 */
export const taggedFiles = (pattern, known, kind) => {
  const files = [...filesIn("packages"), ...filesIn("test")].map((path) => {
    const found = [...readFileSync(new URL(path, root), "utf8").matchAll(pattern)]
    return [path, found.flatMap(([, list]) => list.split(/,\s*/))]
  })
  for (const [path, tags] of files)
    for (const tag of tags) if (!known.has(tag)) throw new Error(`${path}: no ${kind} ${tag}`)
  return files
}

export const isTest = (path) => /(^|\/)test\//.test(path)

/** A cell of a table. */
export const cell = (paths) => paths.map((path) => `\`${path}\``).join("<br>")

/** Writes a document, or with --check only says whether it is up to date. */
export const writeOrCheck = (script, file, text) => {
  const target = new URL(file, root)
  if (!process.argv.includes("--check")) writeFileSync(target, text)
  else if (readFileSync(target, "utf8") !== text) {
    process.stderr.write(`${file} is not up to date: run node ${script}\n`)
    process.exitCode = 1
  }
}
