// Writes docs/svsm-races.md from the schedules in scenarios/svsm-races. With --check it only says whether the file is up
// to date.
import { readdirSync, readFileSync } from "node:fs"
import { root, writeOrCheck } from "./tagged-files.mjs"

const folder = new URL("scenarios/svsm-races/", root)

/** @returns each schedule with its file's name, in the order of the names */
export const findings = () =>
  readdirSync(folder)
    .sort()
    .map((file) => ({ file, ...JSON.parse(readFileSync(new URL(file, folder), "utf8")) }))

const MECHANISMS = {
  lock: "`SvsmState.lock`: REMAP_CA, CREATE_VCPU and DELETE_VCPU go on alone",
  marks: "`SvsmState.changing`: pages that a CPU is validating, rescinding or taking",
  holds: "`SvsmState.held`: the list or buffer that a CPU is working with",
  kept: "`SvsmState.kept`: pages that are being sealed, or whose rights the migration service gives back"
}

/** The whole document. */
export const document = () => {
  const rows = findings().map(
    ({ file, calls: [first, second], start, without, behaviour = "specification", violation }) =>
      `| ${without} | ${behaviour} | ${start} | ${first} | ${second} | ${violation} | \`${file}\` |`
  )
  return [
    "# Races of two vCPUs at one page",
    "",
    "Made by `node scripts/race-table.mjs` from `scenarios/svsm-races`. `test/properties/svsm-races.test.ts` lets two vCPUs",
    "of a guest call the SVSM at once, and visits every state that they can come to, operation by operation: PVALIDATE,",
    "CREATE_VCPU, REMAP_CA and DELETE_VCPU in pairs at the same page P, DEPOSIT_MEM and WITHDRAW_MEM, and the attestation,",
    "the vTPM and a service that copy into P what the guest has chosen, memory acceptance, and the migration service. It",
    "finds nothing in either behaviour. Each line below is what it finds once one of four mechanisms is taken away:",
    "",
    ...Object.entries(MECHANISMS).map(([name, what]) => `- ${name}: ${what}`),
    "",
    "A file holds the calls, what P is before, and the CPU that goes on at each step. The tests play every one: without the",
    "mechanism it ends as the line says, with it nothing happens. P is page 5; the SVSM's own pages begin at 9. P that is",
    "guarded has lost its write right to the migration service; P that is parked is the VMSA of a vCPU that has.",
    "",
    "<!-- prettier-ignore -->",
    "| without | behaviour | P before | one call | the other | what breaks | schedule |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    ...rows,
    ""
  ].join("\n")
}

if (process.argv[1] === new URL(import.meta.url).pathname)
  writeOrCheck("scripts/race-table.mjs", "docs/svsm-races.md", document())
