import * as Plot from "@observablehq/plot"
import { parseHTML } from "linkedom"
import type { DataTable } from "../Csv.ts"
import { dataTable } from "./DataTables.ts"
import { Html, html } from "./Html.ts"

/** Widths in CSS pixels for which every figure is drawn: a page shows the one that fits. Text keeps its size in both. */
export const WIDTHS = { wide: 760, narrow: 340 } as const
export type Width = keyof typeof WIDTHS

/** A picture, what it says in words, and its figures as a table. */
export interface Figure {
  /** Lower case, digits and dashes; no other figure of the page has it. */
  readonly id: string
  readonly title: string
  /** What a reader who cannot see the picture should know. */
  readonly description: string
  readonly draw: (width: Width) => Plot.PlotOptions
  readonly legend?: Html
  readonly data: DataTable
}

const { document } = parseHTML("<!doctype html><html><body></body></html>")

/** Short names of ordinal rows would not fit a narrow page: they go above it there. */
const plotted = (figure: Figure, width: Width): Html => {
  const svg = Plot.plot({
    ...figure.draw(width),
    document: document as never,
    width: WIDTHS[width],
    style: { fontSize: "12px", fontFamily: "inherit", background: "none", overflow: "visible" }
  })
  const id = `${figure.id}-${width}`
  svg.setAttribute("role", "img")
  svg.setAttribute("aria-labelledby", `${id}-title ${id}-desc`)
  // One image to a reader of the screen: what it is made of has labels of its own, which would be read as well.
  for (const part of svg.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label")
  const words = html`<title id="${id}-title">${figure.title}</title><desc id="${id}-desc">${figure.description}</desc>`
  return html`<div class="plot ${width}">${new Html(svg.outerHTML.replace(">", `>${words.text}`))}</div>`
}

/** The figure with its caption, and its data behind a disclosure. */
export const figureHtml = (figure: Figure): Html => html`<figure id="${figure.id}">
<figcaption>${figure.title}</figcaption>
${figure.legend ?? null}
${plotted(figure, "wide")}
${plotted(figure, "narrow")}
<details><summary>Data of this figure</summary>${dataTable(figure.data)}</details>
</figure>`
