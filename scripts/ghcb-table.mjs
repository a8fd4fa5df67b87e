// Writes docs/ghcb.md: for each event of the GHCB page and each request of the GHCB MSR the hypervisor's handler, the
// guest's sender and the tests, from comments `@ghcb 0x80000013, msr 0x006` in the sources. With --check it only says
// whether the file is up to date.
import { readdirSync, readFileSync, writeFileSync } from "node:fs"

const root = new URL("../", import.meta.url)
const target = new URL("docs/ghcb.md", root)

/** Files below a folder, sorted, without what is built. */
const filesIn = (folder) =>
  readdirSync(new URL(folder, root), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => `${entry.parentPath}/${entry.name}`.slice(root.pathname.length))
    .filter((path) => !/\/(node_modules|dist)\//.test(path))
    .sort()

const tagged = (path) => {
  const tags = [...readFileSync(new URL(path, root), "utf8").matchAll(/^(?:\/\/| \*) @ghcb (.+)$/gm)]
  return tags.flatMap(([, list]) => list.split(/,\s*/))
}

const isTest = (path) => /(^|\/)test\//.test(path)
const isGuest = (path) => path.startsWith("packages/guest/")

/** @returns events with title, version, handlers, senders, tests, and why one is refused */
export const events = () => {
  const list = JSON.parse(readFileSync(new URL("docs/ghcb.events.json", root), "utf8"))
  const files = [...filesIn("packages"), ...filesIn("test")].map((path) => [path, tagged(path)])
  const known = new Set(list.map(({ event }) => event))
  for (const [path, tags] of files)
    for (const tag of tags) if (!known.has(tag)) throw new Error(`${path}: no event ${tag}`)
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

const cell = (paths) => paths.map((path) => `\`${path}\``).join("<br>")

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

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const text = document()
  if (!process.argv.includes("--check")) writeFileSync(target, text)
  else if (readFileSync(target, "utf8") !== text) {
    process.stderr.write("docs/ghcb.md is not up to date: run node scripts/ghcb-table.mjs\n")
    process.exitCode = 1
  }
}
