// Writes docs/ghcb.md: for each event of the GHCB page and each request of the GHCB MSR the hypervisor's handler, the
// guest's sender and the tests, from comments `@ghcb 0x80000013, msr 0x006` in the sources. With --check it only says
// whether the file is up to date.
import { readFileSync } from "node:fs"
import { cell, isTest, root, taggedFiles, writeOrCheck } from "./tagged-files.mjs"

const isGuest = (path) => path.startsWith("packages/guest/")

/** @returns events with title, version, handlers, senders, tests, and why one is refused */
export const events = () => {
  const list = JSON.parse(readFileSync(new URL("docs/ghcb.events.json", root), "utf8"))
  const known = new Set(list.map(({ event }) => event))
  const files = taggedFiles(/^(?:\/\/| \*) @ghcb (.+)$/gm, known, "event")
  return list.map((one) => {
    const own = files.filter(([, tags]) => tags.includes(one.event)).map(([path]) => path)
    const code = own.filter((path) => !isTest(path))
    return {
      ...one,
      handlers: code.filter((path) => !isGuest(path)),
      senders: code.filter(isGuest),
      tests: own.filter(isTest)
    }
  })
}

/** The whole document. */
export const document = () => {
  const rows = events().map(({ event, title, version, handlers, senders, tests, refused }) => {
    const handler = refused === undefined ? cell(handlers) : `refused: ${refused}`
    return `| ${event} | ${title} | ${version} | ${handler} | ${cell(senders)} | ${cell(tests)} |`
  })
  return [
    "# GHCB: event, handler, sender, test",
    "",
    "Made by `node scripts/ghcb-table.mjs` from the comments `@ghcb` in the sources. Numbers are exit codes of the GHCB page,",
    "or info codes of the GHCB MSR; the version is that of the protocol which brought the event.",
    "",
    "<!-- prettier-ignore -->",
    "| code | what | version | handler | sender in the guest | tests |",
    "| --- | --- | --- | --- | --- | --- |",
    ...rows,
    ""
  ].join("\n")
}

if (process.argv[1] === new URL(import.meta.url).pathname)
  writeOrCheck("scripts/ghcb-table.mjs", "docs/ghcb.md", document())
