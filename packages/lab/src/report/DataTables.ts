import { type Cell, csvOf, type DataTable } from "../Csv.ts"
import { type Html, html } from "./Html.ts"

/** At most three decimals, thousands apart: a table is for reading, its CSV for computing. */
export const shownCell = (cell: Cell): string => {
  if (cell === null) return "–"
  if (typeof cell !== "number") return String(cell)
  if (!Number.isFinite(cell)) return String(cell)
  return cell.toLocaleString("en-US", { maximumFractionDigits: 3 })
}

/** A table that scrolls in a box of its own, which the keyboard can reach; and a link that saves it as CSV. */
export const tableHtml = (table: DataTable, shown: DataTable = table): Html => {
  const isNumber = shown.columns.map((_, i) =>
    shown.rows.every((row) => row[i] === null || typeof row[i] === "number" || isFigure(row[i]!))
  )
  const header = shown.columns.map(
    (column, i) => html`<th scope="col"${isNumber[i] ? html` class="n"` : null}>${column}</th>`
  )
  const row = (cells: ReadonlyArray<Cell>) =>
    cells.map((cell, i) =>
      i === 0
        ? html`<th scope="row">${shownCell(cell)}</th>`
        : html`<td${isNumber[i] || isFigure(cell) ? html` class="n"` : null}>${shownCell(cell)}</td>`
    )
  return html`<div class="scroll" role="group" tabindex="0" aria-label="${shown.title}"><table>
<caption>${shown.title}</caption>
<thead><tr>${header}</tr></thead>
<tbody>${shown.rows.map((cells) => html`<tr>${row(cells)}</tr>\n`)}</tbody>
</table></div>
${csvLink(table)}`
}

/** `12.4 us`, `x2.79`, `37 %`: set like numbers. */
const isFigure = (cell: Cell): boolean =>
  typeof cell === "string" && /^(?:x?[\d.,]+(?: (?:ns|us|ms|s|%))?|-|<1 %)$/.test(cell)

/** A link that saves the table: the file is in the link. */
const csvLink = (table: DataTable): Html =>
  html`<p class="save"><a download="${table.name}.csv" href="data:text/csv;charset=utf-8,${encodeURIComponent(csvOf(table))}">${table.name}.csv</a></p>`

export const dataTable = (table: DataTable): Html => tableHtml(table)
