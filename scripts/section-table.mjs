// Writes docs/rmp-vmpl.md: for each section of the facts on RMP and VMPL, the code and the tests that name it in a
// comment `@section 2.4, 1.7`. With --check it only says whether the file is up to date.
import { readFileSync } from "node:fs"
import { cell, isTest, root, taggedFiles, writeOrCheck } from "./tagged-files.mjs"

/** @returns sections with title, code, tests, and why there are none where there need not be any */
export const sections = () => {
  const list = JSON.parse(readFileSync(new URL("docs/rmp-vmpl.sections.json", root), "utf8"))
  const known = new Set(list.map(({ section }) => section))
  const files = taggedFiles(/^\/\/ @section (.+)$/gm, known, "section")
  return list.map((one) => {
    const own = files.filter(([, tags]) => tags.includes(one.section)).map(([path]) => path)
    return { ...one, code: own.filter((path) => !isTest(path)), tests: own.filter(isTest) }
  })
}

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

if (process.argv[1] === new URL(import.meta.url).pathname)
  writeOrCheck("scripts/section-table.mjs", "docs/rmp-vmpl.md", document())
