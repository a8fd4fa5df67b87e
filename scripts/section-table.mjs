// Writes docs/rmp-vmpl.md: for each section of the facts on RMP and VMPL, the code and the tests that name it in a
// comment `@section 2.4, 1.7`. With --check it only says whether the file is up to date.
import { readdirSync, readFileSync, writeFileSync } from "node:fs"

const root = new URL("../", import.meta.url)
const target = new URL("docs/rmp-vmpl.md", root)

/** Files below a folder, sorted, without what is built. */
const filesIn = (folder) =>
  readdirSync(new URL(folder, root), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => `${entry.parentPath}/${entry.name}`.slice(root.pathname.length))
    .filter((path) => !/\/(node_modules|dist)\//.test(path))
    .sort()

const tagged = (path) => {
  const tags = [...readFileSync(new URL(path, root), "utf8").matchAll(/^\/\/ @section (.+)$/gm)]
  return tags.flatMap(([, list]) => list.split(/,\s*/))
}

/** @returns sections with title, code, tests, and why there are none where there need not be any */
export const sections = () => {
  const list = JSON.parse(readFileSync(new URL("docs/rmp-vmpl.sections.json", root), "utf8"))
  const files = [...filesIn("packages"), ...filesIn("test")].map((path) => [path, tagged(path)])
  const known = new Set(list.map(({ section }) => section))
  for (const [path, tags] of files)
    for (const tag of tags) if (!known.has(tag)) throw new Error(`${path}: no section ${tag}`)
  return list.map((one) => {
    const own = files.filter(([, tags]) => tags.includes(one.section)).map(([path]) => path)
    const isTest = (path) => /(^|\/)test\//.test(path)
    return { ...one, code: own.filter((path) => !isTest(path)), tests: own.filter(isTest) }
  })
}

const cell = (paths) => paths.map((path) => `\`${path}\``).join("<br>")

/** The whole document. */
export const document = () => {
  const rows = sections().map(({ section, title, code, tests, without }) =>
    without === undefined
      ? `| ${section} | ${title} | ${cell(code)} | ${cell(tests)} |`
      : `| ${section} | ${title} | left out: ${without} | |`
  )
  return [
    "# RMP and VMPL: section, code, test",
    "",
    "Made by `node scripts/section-table.mjs` from the comments `// @section` in the sources. The sections are those of the",
    "project's facts on RMP and VMPL; the documents behind them are in [specs.json](specs.json).",
    "",
    "<!-- prettier-ignore -->",
    "| section | what | code | tests |",
    "| --- | --- | --- | --- |",
    ...rows,
    ""
  ].join("\n")
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const text = document()
  if (!process.argv.includes("--check")) writeFileSync(target, text)
  else if (readFileSync(target, "utf8") !== text) {
    process.stderr.write("docs/rmp-vmpl.md is not up to date: run node scripts/section-table.mjs\n")
    process.exitCode = 1
  }
}
