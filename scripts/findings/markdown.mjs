// Shapes of generated Markdown.

const WIDTH = 118

/** Lines of at most 118 columns, the later ones indented. */
export const wrapped = (text, indent = "") => {
  const lines = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > WIDTH) {
      lines.push(line)
      line = indent + word
    } else line = line === "" ? word : `${line} ${word}`
  }
  return [...lines, line].join("\n")
}

/**
 * One finding, with its numbers as run. A sentence that the runs do not bear out any more stops the script: then the
 * text has to change, not only its numbers.
 */
export const finding = (holds, text) => {
  if (!holds) throw new Error(`the runs no longer show that: ${text}`)
  return wrapped(`- ${text}`, "  ")
}

/** Columns are padded, as the formatter does it. @param rows lists of cells; all columns but those in `left` are numbers */
export const table = (head, rows, left = [0]) => {
  const cells = [head, ...rows].map((row) => row.map(String))
  const widths = head.map((_, i) => Math.max(3, ...cells.map((row) => row[i].length)))
  const isLeft = (i) => left.includes(i)
  const padded = cells.map((row) =>
    row.map((cell, i) => (isLeft(i) ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
  )
  const rule = widths.map((width, i) => (isLeft(i) ? "-".repeat(width) : `${"-".repeat(width - 1)}:`))
  const [first, ...rest] = padded
  return [first, rule, ...rest].map((row) => `| ${row.join(" | ")} |`).join("\n")
}

export const shell = (commands) => ["```sh", ...commands.map((command) => `npx vmpl-lab ${command}`), "```"].join("\n")

/** Puts a text between the marks of that name; both have to be there, once. */
export const between = (document, name, text) => {
  const [begin, end] = [`<!-- findings:${name}:begin -->`, `<!-- findings:${name}:end -->`]
  const parts = document.split(begin)
  const rest = parts[1]?.split(end)
  if (parts.length !== 2 || rest?.length !== 2) throw new Error(`expected ${begin} and ${end} once`)
  return `${parts[0]}${begin}\n\n${text}\n\n${end}${rest[1]}`
}
