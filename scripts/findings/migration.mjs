// The part about live migration: what it costs per strategy and way of finding the pages that are written meanwhile.
import { COMMANDS } from "./commands.mjs"
import { code, duration, percent } from "./figures.mjs"
import { finding, shell, table } from "./markdown.mjs"

const FASTEST = "multi-vmpl-vcpu"
const RIGHT = "vmpl-write-right"
const TABLE = "nested-page-table"
const NAMES = { [RIGHT]: "write right", [TABLE]: "Dirty bits" }

const extent = (values) => [Math.min(...values), Math.max(...values)]
const spanOf = (values, say) => {
  const [low, high] = extent(values).map(say)
  return low === high ? low : `${low} to ${high}`
}
const mib = (bytes) => `${(bytes / 0x10_0000).toFixed(1)} MiB`
const slower = ({ writesPerSecond: { before, during } }) => 1 - during / before
const switches = ({ switches: { source, target } }) => source + target

/** The rows of the table: a migration each. */
export const migrationRows = ({ migrations }) =>
  migrations.map((run) => [
    code(run.strategy),
    NAMES[run.tracking],
    duration(run.downtimeNs),
    duration(run.totalNs),
    run.dirtyFaults,
    switches(run),
    percent(slower(run)),
    mib(run.bytes)
  ])

export const migration = ({ migration: json }) => {
  const { migrations, parameters } = json
  const of = (tracking) => migrations.filter((run) => run.tracking === tracking)
  const [right, bits] = [of(RIGHT), of(TABLE)]
  const fastest = right.find(({ strategy }) => strategy === FASTEST)
  const byFaults = right.toSorted((a, b) => slower(a) - slower(b))
  const perFault = (run) => switches(run) / run.dirtyFaults
  return [
    [
      finding(
        byFaults[0] === fastest &&
          byFaults.at(-1).strategy.endsWith("threads") &&
          bits.every((run) => slower(run) < 0.02),
        "With the write right taken, what a strategy's switch costs is what the guest feels: it writes " +
          `${percent(slower(fastest))} less while it moves under ${code(FASTEST)}, ${percent(slower(byFaults.at(-1)))} under ` +
          `${code(byFaults.at(-1).strategy)}. Each fault is a switch there and back, about ` +
          `${(right.reduce((sum, run) => sum + perFault(run), 0) / right.length).toFixed(1)} switches with the agent's calls. ` +
          `With Dirty bits there is no fault, and it loses ${percent(Math.max(...bits.map(slower)))}.`
      ),
      finding(
        bits.every(({ downtimeNs }) => downtimeNs > 3 * Math.max(...right.map((run) => run.downtimeNs))),
        `The downtime is the other way round: ${spanOf(
          right.map(({ downtimeNs }) => downtimeNs),
          duration
        )} with the write right, ${spanOf(
          bits.map(({ downtimeNs }) => downtimeNs),
          duration
        )} with Dirty bits, as the host is not trusted with them: all memory is hashed again while the guest stands still, and ` +
          `that grows with memory (${parameters.pages} pages here, beside those of boot).`
      ),
      finding(
        right.every(({ strategy, totalNs, bytes }) => {
          const other = bits.find((run) => run.strategy === strategy)
          return totalNs < other.totalNs && bytes < other.bytes
        }),
        `A guest that is slowed down dirties less: the write right sends ${spanOf(
          right.map(({ bytes }) => bytes),
          mib
        )} in ${spanOf(
          right.map(({ totalNs }) => totalNs),
          duration
        )}, Dirty bits ${spanOf(
          bits.map(({ bytes }) => bytes),
          mib
        )} in ${spanOf(
          bits.map(({ totalNs }) => totalNs),
          duration
        )}. Which strategy it is matters little to either.`
      )
    ].join("\n"),
    table(
      ["strategy", "tracking", "downtime", "total", "faults", "VMPL switches", "slower", "sent"],
      migrationRows(json),
      [0, 1]
    ),
    shell([COMMANDS.migration])
  ].join("\n\n")
}
