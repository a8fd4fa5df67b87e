// Puts the output of a real run on Debian's OVMF image into README.md, between the two marks. Run by `npm run readme`.
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const BEGIN = "<!-- run:begin -->"
const END = "<!-- run:end -->"

const output = execFileSync("npx", ["vmpl-lab", "compare", "--firmware", "/usr/share/ovmf/OVMF.fd"], {
  cwd: root,
  encoding: "utf8",
  stdio: ["ignore", "pipe", "ignore"]
})

const part = (from, to) => {
  const begin = output.indexOf(from)
  const end = output.indexOf(to, begin)
  if (begin < 0 || end < 0) throw new Error(`no "${from}" before "${to}" in the output of compare`)
  return output.slice(begin, end).trimEnd()
}

// The latency table, and the footer without commit, state digest and host time: these change with every commit or run.
const table = part("Latency of AP create", "\n\n")
const footer = part("Simulated, not measured", "State digest:").replace(/;\s+commit\s+\w+\./, ".")

const readme = readFileSync(`${root}README.md`, "utf8")
const [begin, end] = [readme.indexOf(BEGIN), readme.indexOf(END)]
if (begin < 0 || end < begin) throw new Error(`README.md: expected ${BEGIN} and ${END}`)
const block = `${BEGIN}\n\`\`\`text\n${table}\n\n${footer}\n\`\`\`\n`
writeFileSync(`${root}README.md`, readme.slice(0, begin) + block + readme.slice(end))
