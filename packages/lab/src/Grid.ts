import Table from "cli-table3"

/** A table of text cells. Columns of numbers, named in `numbers` by their index, are aligned right. */
export const grid = (
  head: ReadonlyArray<string>,
  numbers: ReadonlyArray<number>,
  rows: ReadonlyArray<ReadonlyArray<string>>
): string => {
  const table = new Table({
    head: [...head],
    colAligns: head.map((_, column) => (numbers.includes(column) ? "right" : "left")),
    style: { head: [], border: [], compact: true }
  })
  for (const row of rows) table.push([...row])
  return table.toString()
}
