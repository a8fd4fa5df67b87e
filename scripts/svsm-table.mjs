// Writes docs/svsm.md: for each check of each SVSM call the answer of both behaviours and the tests, from
// docs/svsm.checks.json and the cases `answer("id", ...)` of the tests, which hold the SVSM to what the table says. With
// --check it only says whether the file is up to date.
import { readFileSync } from "node:fs"
import { cell, isTest, root, taggedFiles, writeOrCheck } from "./tagged-files.mjs"

/** @returns rows with the tests that prove them */
export const checks = () => {
  const list = JSON.parse(readFileSync(new URL("docs/svsm.checks.json", root), "utf8"))
  const known = new Set(list.map(({ id }) => id))
  const files = taggedFiles(/^answer\(\s*"([^"]+)"/gm, known, "SVSM check").filter(([path]) => isTest(path))
  return list.map((one) => ({
    ...one,
    tests: files.filter(([, ids]) => ids.includes(one.id)).map(([path]) => path)
  }))
}

const coconutCell = ({ coconut, coconutStops }) =>
  coconutStops === true ? `stops the guest (here: ${coconut})` : coconut

/** The whole document. */
export const document = () => {
  const rows = checks().map((one) => {
    const { call, check, specification, source, deviation, tests } = one
    return `| ${call} | ${check} | ${specification} | ${coconutCell(one)} | ${source} | ${deviation ?? ""} | ${cell(tests)} |`
  })
  return [
    "# SVSM: call, check, both answers, test",
    "",
    "Made by `node scripts/svsm-table.mjs` from `docs/svsm.checks.json`; the tests compare the SVSM's answers with that file.",
    'A scenario chooses with `"svsm": { "behaviour": "specification" }`, the default, or `"coconut"`. Where COCONUT-SVSM',
    "stops, and the guest with it, this SVSM answers and notes it in `SvsmState.panics`. The column with a number is that of",
    "the known deviations of COCONUT-SVSM from the specification.",
    "",
    "Sources: S is AMD 58019 revision 1.00 with its section, CO what COCONUT-SVSM (f4bc4bcd) does, LX the Linux guest, GHCB",
    "AMD 56421, EDK2 its management mode's variable driver; own are protocols of this project, memory acceptance and",
    "migration; inferred is what none of them says. Where S is silent, both behaviours answer as CO unless the row says",
    "otherwise. Each test asks an SVSM of each behaviour.",
    "",
    "<!-- prettier-ignore -->",
    "| call | check | specification | coconut | source | deviation | tests |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    ...rows,
    ""
  ].join("\n")
}

if (process.argv[1] === new URL(import.meta.url).pathname)
  writeOrCheck("scripts/svsm-table.mjs", "docs/svsm.md", document())
