// docs/findings.svg: where the time of one round trip goes under each strategy, and how far one price alone can move it.
import { LAYER_TEXT, LAYERS, layerOf } from "@vmpl-lab/lab"
import { duration, namesIn, resultOf } from "./figures.mjs"

const WIDTH = 860
const LEFT = 238
const RIGHT = 72
const TOP = 92
const ROW = 40
const BAR = 20

/** Colours by their names in the report, for light and dark. */
const STYLE = `
text{font:13px system-ui,"Segoe UI","Helvetica Neue",Arial,sans-serif;fill:var(--ink)}
.title{font-size:17px;font-weight:650}.soft{fill:var(--soft);font-size:12px}.name{font-size:13px}
.value{font-weight:650;paint-order:stroke;stroke:var(--paper);stroke-width:5px}
.range{stroke:var(--ink);stroke-width:1.6;fill:none}.grid{stroke:var(--rule)}
.paper{fill:var(--paper)}
svg{--paper:#fbfbf9;--ink:#1b1d21;--soft:#565c66;--rule:#dcdcd6;--guest:#2f7355;--world:#8b939e;--kvm:#2a64a0;--user:#c8692f;--threads:#6f4aa0}
@media (prefers-color-scheme:dark){svg{--paper:#14161a;--ink:#e8e7e3;--soft:#a9afb8;--rule:#34383f;--guest:#79c6a2;--world:#7f8792;--kvm:#78aee8;--user:#ee9e68;--threads:#bda0ec}}
`

const text = (x, y, words, kind, anchor = "start") =>
  `<text x="${x.toFixed(1)}" y="${y}" class="${kind}" text-anchor="${anchor}">${words}</text>`

/** Time by layer. The published sum of exit, dispatch and entry goes by its first part. */
const layersOf = ({ breakdown }) =>
  LAYERS.map((layer) => {
    const rows = breakdown.filter(({ primitive }) => layerOf(primitive) === layer)
    return { layer, ns: rows.reduce((sum, { ns }) => sum + ns, 0) }
  }).filter(({ ns }) => ns > 0)

/** Lowest and highest median that one price alone gives, where all draws agree. */
const rangeOf = ({ baseline, knobs }, name) => {
  const ends = knobs.flatMap(({ effects }) =>
    effects
      .filter(({ strategy }) => strategy === name)
      .flatMap((one) => [...(one.lowDetected ? [one.low] : []), ...(one.highDetected ? [one.high] : [])])
  )
  const now = baseline.find(({ strategy }) => strategy === name).ns
  return [Math.min(now, ...ends), Math.max(now, ...ends)]
}

/** @returns the text of the file */
export const picture = ({ best, sensitivity }) => {
  const rows = namesIn(best)
    .map((name) => {
      const result = resultOf(best, name)
      return {
        name,
        ns: result.ns.p50,
        mean: result.ns.mean,
        layers: layersOf(result),
        range: rangeOf(sensitivity, name)
      }
    })
    .toSorted((a, b) => a.ns - b.ns)
  const top = Math.ceil(Math.max(...rows.map(({ range, mean }) => Math.max(range[1], mean))) / 5_000) * 5_000
  const x = (ns) => LEFT + (ns / top) * (WIDTH - LEFT - RIGHT)
  const bottom = TOP + rows.length * ROW
  const ticks = Array.from({ length: top / 5_000 + 1 }, (_, i) => i * 5_000)
  const grid = ticks.map(
    (ns) =>
      `<line x1="${x(ns).toFixed(1)}" x2="${x(ns).toFixed(1)}" y1="${TOP}" y2="${bottom}" class="grid"/>` +
      text(x(ns), bottom + 18, ns === 0 ? "0" : `${ns / 1000} us`, "soft", "middle")
  )
  const bars = rows.flatMap(({ name, ns, layers, range }, i) => {
    const y = TOP + i * ROW + (ROW - BAR) / 2
    const middle = y + BAR / 2
    let at = 0
    const parts = layers.map(({ layer, ns: length }) => {
      const begin = at
      at += length
      const width = x(at) - x(begin) - 1
      return `<rect x="${x(begin).toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${BAR}" style="fill:var(--${layer})"/>`
    })
    const [low, high] = range.map((end) => x(end).toFixed(1))
    const line = `<path class="range" d="M${low},${middle - 5}v10M${low},${middle}H${high}M${high},${middle - 5}v10"/>`
    const end = Math.max(x(range[1]), x(at)) + 8
    return [
      text(LEFT - 12, middle + 5, name, "name", "end"),
      ...parts,
      line,
      text(end, middle + 5, duration(ns), "value")
    ]
  })
  const used = LAYERS.filter((layer) => rows.some(({ layers }) => layers.some((one) => one.layer === layer)))
  let keyAt = 20
  const keys = used.map((layer) => {
    const begin = keyAt
    keyAt += 34 + LAYER_TEXT[layer].length * 6.5
    return `<rect x="${begin}" y="66" width="14" height="12" style="fill:var(--${layer})"/>${text(begin + 20, 77, LAYER_TEXT[layer], "soft")}`
  })
  const words = rows.map(({ name, ns }) => `${name} ${duration(ns)}`).join(", ")
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${bottom + 34}" width="${WIDTH}" height="${bottom + 34}" role="img" aria-labelledby="title desc">
<title id="title">Where the time of one SVSM call goes, by strategy</title>
<desc id="desc">Median round trip to VMPL0 and back, simulated: ${words}.</desc>
<style>${STYLE}</style>
<rect class="paper" width="100%" height="100%"/>
${text(20, 30, "One SVSM call: VMPL2 to VMPL0 and back, without the service", "title")}
${text(20, 50, "Simulated. Bar: mean; number: median; line: how far one price alone, moved within its range, takes the median", "soft")}
${[...keys, ...grid, ...bars].join("\n")}
</svg>
`
}
