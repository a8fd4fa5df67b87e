import { type DataTable, tableOf } from "../Csv.ts"
import { count, duration, percent, ratio } from "../Units.ts"
import { breakdownFigure } from "./BreakdownFigure.ts"
import { tableHtml } from "./DataTables.ts"
import { type Figure, figureHtml } from "./Figure.ts"
import { Html, html } from "./Html.ts"
import { latencyFigure } from "./LatencyFigure.ts"
import { textures } from "./Layers.ts"
import { type Comparison, nameOf, type ReportInput, type ReportResult } from "./ReportInput.ts"
import { sequenceFigure } from "./SequenceFigure.ts"
import { STYLE } from "./Style.ts"
import { sweepFigure, sweepTable } from "./SweepFigure.ts"
import { tornadoFigure } from "./TornadoFigure.ts"

/** A chapter of the report: what it shows and every table in it. */
interface Chapter {
  readonly id: string
  readonly title: string
  readonly body: Html
  readonly tables: ReadonlyArray<DataTable>
}

/** A whole report: the document, and every table in it for those who want the figures. */
export interface Report {
  readonly document: string
  readonly tables: ReadonlyArray<DataTable>
}

/** The switch that a guest waits for comes first; what it does not know comes last, under its own name. */
const OPERATIONS: ReadonlyArray<readonly [key: string, title: string]> = [
  ["run-vmpl-round-trip", "Round trip: one SVSM call and back"],
  ["run-vmpl-one-way", "One way: one switch between two VMPLs"],
  ["ap-create", "AP create"]
]

const operationsOf = (results: ReadonlyArray<ReportResult>): ReadonlyArray<readonly [string, string]> => {
  const known = OPERATIONS.map(([key]) => key)
  const others = [...new Set(results.map(({ operation }) => operation))].filter((key) => !known.includes(key))
  return [...OPERATIONS, ...others.map((key) => [key, key] as const)].filter(([key]) =>
    results.some(({ operation, samples }) => operation === key && samples > 0)
  )
}

/** What a result's table shows, and the same in full for its CSV. */
const resultTables = (id: string, title: string, results: ReadonlyArray<ReportResult>) => {
  const shown = tableOf(
    id,
    title,
    results.map((result) => ({
      strategy: nameOf(result),
      p50: duration(result.ns.p50),
      p90: duration(result.ns.p90),
      p99: duration(result.ns.p99),
      "to fastest": ratio(result.ratioToFastest ?? null),
      "VM exits": count(result.perSwitch.vmExits ?? null),
      "user exits": count(result.perSwitch.userExits ?? null),
      "hand-offs": count(result.perSwitch.threadHandOffs ?? null),
      assumed: percent(result.assumedShare),
      samples: result.samples
    }))
  )
  const { columns, rows } = tableOf(id, title, results)
  const full: DataTable = { name: id, title, columns, rows }
  return { full, shown }
}

const figuresIn = (figures: ReadonlyArray<Figure | null>): ReadonlyArray<Figure> =>
  figures.filter((one) => one !== null)

/** Keys of a comparison that this version draws or names; other lists of objects become plain tables. */
const DRAWN: ReadonlySet<string> = new Set([
  "results",
  "timeline",
  "wall",
  "varying",
  "parameters",
  "rmpSwitches",
  "firmware"
])

const isRecord = (value: unknown): value is object =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** `interrupts`, `paired` and whatever else a result brings, as long as it is a list of objects or holds one. */
const extraTables = (prefix: string, comparison: Comparison): ReadonlyArray<DataTable> =>
  // What the strategies are made of is the least of news.
  [
    ...Object.entries(comparison).filter(([key]) => key !== "strategies"),
    ["strategies", comparison.strategies] as const
  ].flatMap(([key, value]: readonly [string, unknown]) => {
    if (DRAWN.has(key)) return []
    const lists: ReadonlyArray<readonly [string, unknown]> = isRecord(value)
      ? Object.entries(value).map(([inner, list]) => [`${key} ${inner}`, list] as const)
      : [[key, value]]
    return lists.flatMap(([name, list]) => {
      if (!Array.isArray(list) || list.length === 0 || !list.every(isRecord)) return []
      const table = tableOf(`${prefix}-${slug(name)}`, name.charAt(0).toUpperCase() + name.slice(1), list)
      return table.columns.length === 0 ? [] : [table]
    })
  })

const slug = (text: string): string =>
  text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "")

const field = (name: string, value: string | number) => html`<dt>${name}</dt><dd>${value}</dd>`

const facts = (comparison: Comparison): Html => {
  const { seed, commit, profile, machine, scenario, launchDigest, stateDigest } = comparison
  return html`<dl>${field("Scenario", scenario)}${field("Profile", machine === undefined ? profile : `${profile}: ${machine}`)}${field("Seed", seed)}${field("Commit", commit)}${field("Launch digest", launchDigest)}${field("State digest", stateDigest)}</dl>`
}

const comparisonChapter = (prefix: string, title: string, comparison: Comparison): Chapter => {
  const tables: Array<DataTable> = []
  const figure = (one: Figure): Html => {
    tables.push(one.data)
    return figureHtml(one)
  }
  const operations = operationsOf(comparison.results).map(([key, title], i) => {
    const results = comparison.results.filter(({ operation, samples }) => operation === key && samples > 0)
    // Names that this version does not know might become equal ids.
    const id = `${prefix}-${OPERATIONS.some(([known]) => known === key) ? key : `operation-${i + 1}`}`
    const { full, shown } = resultTables(id, "Latency in virtual time; counts are means for one switch", results)
    tables.push(full)
    const groups = results.flatMap((result) =>
      (result.groups ?? []).map((group) => ({
        request: group.name,
        strategy: nameOf(result),
        ...group.ns,
        samples: group.samples
      }))
    )
    const figures = figuresIn([
      breakdownFigure(`${id}-breakdown`, "Where the mean goes", results),
      latencyFigure(`${id}-latency`, "Latency distribution", results)
    ])
    const groupTable = tableOf(`${id}-requests`, "By level and request, virtual ns", groups)
    if (groups.length > 0) tables.push(groupTable)
    return html`<h3 id="${id}">${title}</h3>
${tableHtml(full, shown)}
${figures.map(figure)}
${groups.length > 0 ? html`<details><summary>By level and request</summary>${tableHtml(groupTable)}</details>` : null}`
  })
  const timelines = comparison.timeline ?? []
  const sequences = timelines.map((one, i) => figure(sequenceFigure(`${prefix}-sequence-${i + 1}`, one)))
  const extra = extraTables(prefix, comparison)
  tables.push(...extra)
  const body = html`${facts(comparison)}
${operations}
${
  sequences.length === 0
    ? null
    : html`<h3 id="${prefix}-sequence">One call, step by step</h3>
<p>A call with the median latency under each strategy, each on a scale of its own. Time runs to the right; an arrow is one
thread waking another; a dot is the first instruction at a VMPL. Pale bars do not count for the latency.</p>
${sequences}`
}
${extra.length === 0 ? null : html`<h3 id="${prefix}-more">More of this result</h3>${extra.map((table) => tableHtml(table))}`}`
  return { id: prefix, title, body, tables }
}

const sensitivityChapter = (
  prefix: string,
  title: string,
  input: Extract<ReportInput, { kind: "sensitivity" }>
): Chapter => {
  const { baseline } = input.sensitivity
  const figures = figuresIn(
    baseline.map(({ strategy }, i) => tornadoFigure(`${prefix}-${i + 1}`, input.sensitivity, strategy))
  )
  const body = html`<p>One price at a time goes from the low end of what is known of it to the high end. A bar is where the
median goes; the line is the median at nominal prices.</p>${figures.map(figureHtml)}`
  return { id: prefix, title, body, tables: figures.map(({ data }) => data) }
}

const sweepChapter = (prefix: string, title: string, input: Extract<ReportInput, { kind: "sweep" }>): Chapter => {
  const figure = sweepFigure(`${prefix}-lines`, input.points)
  const table = sweepTable(`${prefix}-points`, `All ${input.points.length} points, medians in virtual ns`, input.points)
  const body = html`${figure === null ? null : figureHtml(figure)}
<details><summary>All points</summary>${tableHtml(table)}</details>`
  return { id: prefix, title, body, tables: [...(figure === null ? [] : [figure.data]), table] }
}

const chapterOf = (input: ReportInput, index: number, inputs: ReadonlyArray<ReportInput>): Chapter => {
  const prefix = `r${index + 1}`
  const alike = inputs.filter(({ kind }) => kind === input.kind)
  const number = alike.length === 1 ? "" : ` ${alike.indexOf(input) + 1}`
  if (input.kind === "sensitivity") return sensitivityChapter(prefix, `Sensitivity to prices${number}`, input)
  if (input.kind === "sweep") return sweepChapter(prefix, `Sweep${number}`, input)
  const { scenario, profile } = input.comparison
  return comparisonChapter(prefix, `Comparison${number}: ${scenario} on ${profile}`, input.comparison)
}

/** No script, nothing fetched: the browser itself is told to refuse both, whatever a result holds. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

/** One self-contained document out of any number of results, at least one. Equal inputs give equal documents. */
export const renderReport = (inputs: ReadonlyArray<ReportInput>): Report => {
  const chapters = inputs.map(chapterOf)
  const title = "Ways to run VMPLs, compared"
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>${title} – vmpl-lab</title>
<style>${new Html(STYLE)}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>${title}</h1>
<div class="basis" role="note"><p><strong>Simulated, never measured.</strong> Every latency here is virtual time: the sum of
the steps that a strategy took, at the prices of a profile. Each price is measured, published or assumed, and the figures
say which.</p></div>
<nav aria-label="Contents"><ul>${chapters.map(({ id, title }) => html`<li><a href="#${id}">${title}</a></li>`)}</ul></nav>
</header>
<main id="content">
${textures()}
${chapters.map(({ id, title, body }) => html`<section aria-labelledby="${id}"><h2 id="${id}">${title}</h2>\n${body}</section>\n`)}
</main>
<footer>Made by vmpl-lab from ${inputs.length === 1 ? "one result" : `${inputs.length} results`}. Tables can be saved as CSV
with the link below each. ns, us and ms are virtual nano-, micro- and milliseconds.</footer>
</body>
</html>
`
  return { document: page.text, tables: chapters.flatMap(({ tables }) => tables) }
}
