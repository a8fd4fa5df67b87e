// The part about services: each call of the SVSM's under each strategy.
import { COMMANDS } from "./commands.mjs"
import { code, duration } from "./figures.mjs"
import { finding, shell, table } from "./markdown.mjs"

const FASTEST = "multi-vmpl-vcpu"
const THREADS = "vcpu-per-vmpl/vmm-threads"
/** The protocol whose calls are those of whole migrations. */
const MOVES = "migration"

const PARTS = ["PARK, the write right taken", "PARK, the host tracks"]

const distinct = (values) => [...new Set(values)]
const extent = (values) => [Math.min(...values), Math.max(...values)]
const span = ([low, high]) =>
  duration(low) === duration(high) ? duration(low) : `${duration(low)} to ${duration(high)}`

/** The rows of the table: a call, what the SVSM does for it, and p50 with its switch under each strategy. */
export const serviceRows = ({ latency }) => {
  const strategies = distinct(latency.map(({ strategy }) => strategy))
  const calls = distinct(latency.map(({ protocol, call }) => JSON.stringify([protocol, call])))
  const rows = calls.map((key) => {
    const [protocol, call] = JSON.parse(key)
    const found = latency.filter((row) => row.protocol === protocol && row.call === call)
    const cells = strategies.map((name) => {
      const { ns, switchNs } = found.find(({ strategy }) => strategy === name)
      return `${duration(ns)} (${duration(switchNs)})`
    })
    return [protocol, call, span(extent(found.map(({ serviceNs }) => serviceNs))), ...cells]
  })
  return { strategies, rows }
}

export const services = ({ services: json }) => {
  const { latency } = json
  const { strategies, rows } = serviceRows(json)
  const of = (name) => latency.filter(({ strategy }) => strategy === name)
  const row = (call, name = FASTEST) => of(name).find((one) => one.call === call)
  // Calls of a guest that writes, and is moved, between which its host kicks it; PARK is half a round trip.
  const isMoving = ({ protocol }) => protocol === MOVES
  const atRest = (name) => of(name).filter((one) => !isMoving(one))
  const slowSwitch = extent(atRest(THREADS).map(({ switchNs }) => switchNs))
  const steady = strategies.filter((name) => {
    const [low, high] = extent(atRest(name).map(({ switchNs }) => switchNs))
    return high - low <= 2
  })
  const spreads = rows.map((_, i) => {
    const [low, high] = extent(
      latency
        .filter(({ call, protocol }) => call === rows[i][1] && protocol === rows[i][0])
        .map(({ serviceNs }) => serviceNs)
    )
    return { protocol: rows[i][0], ns: high - low }
  })
  const differs = distinct(spreads.filter(({ ns }) => ns > 2).map(({ protocol }) => protocol))
  const mostlySwitch = (name) => of(name).filter(({ ns, switchNs }) => 2 * switchNs > ns).length
  const one = row("PVALIDATE, one page validated")
  const many = row("PVALIDATE, 64 pages validated")
  const large = row("PVALIDATE, 2 MiB validated")
  const report = row("ATTEST_SERVICES")
  return [
    [
      finding(
        differs.every((protocol) => ["attestation", "acceptance", MOVES].includes(protocol)),
        "What the SVSM does for a call costs the same under every strategy, to the 2 ns of the TSC's step" +
          `${differs.length === 0 ? "" : `, but where it asks the host for something or another vCPU has to come (${differs.join(", ")})`}: a strategy decides the switch.`
      ),
      finding(
        strategies.every((name) => 2 * mostlySwitch(name) > rows.length),
        `For most calls the switch is most of the time: for ${Math.min(...strategies.map(mostlySwitch))} of ${rows.length} ` +
          `under every strategy. So batching pays: a page costs ${duration(one.ns)} alone and ` +
          `${duration(Math.round(many.ns / 64))} in a list of 64, and 512 pages in one entry of 2 MiB ${duration(large.ns)}.`
      ),
      finding(
        report.serviceNs > 100 * report.switchNs,
        `No strategy matters to attestation: the AMD-SP takes ${duration(report.serviceNs)} for a report.`
      ),
      finding(
        strategies.every((name) => {
          const [faulting, plain] = PARTS.map((call) => row(call, name))
          return faulting.ns - plain.ns > plain.switchNs
        }),
        `A moving vCPU stops by a call that does not return, ${duration(row(PARTS[1]).ns)} (${code(FASTEST)}); where writes are ` +
          `found by a missing right, its calling area misses it too: with the fault it is ${duration(row(PARTS[0]).ns)}, and up to ` +
          `${duration(Math.max(...strategies.map((name) => row(PARTS[0], name).ns)))} elsewhere.`
      ),
      finding(
        strategies.every((name) => steady.includes(name) === !name.endsWith("threads")),
        "The switch is the same for every call of a guest that is not moved, but for a thread for each level, whose hand-off varies: medians of 20 calls " +
          `lie between ${duration(slowSwitch[0])} and ${duration(slowSwitch[1])} (${code(THREADS)}), which is chance.`
      )
    ].join("\n"),
    table(["protocol", "call", "service", ...strategies.map(code)], rows, [0, 1]),
    shell([COMMANDS.services])
  ].join("\n\n")
}
