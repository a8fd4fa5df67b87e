/** With strategy names of up to 19 characters every table fits a terminal of 100 columns, and so does the text below. */
export const TEXT_WIDTH = 98

/**
 * Breaks a line between words so that it stays within the width; a longer word keeps a line of its own. Lines after the
 * first are indented.
 */
export const wrap = (line: string, width = TEXT_WIDTH): string => {
  const lines: Array<string> = []
  let current = ""
  for (const word of line.split(" ")) {
    if (current !== "" && current.length + 1 + word.length > width) {
      lines.push(current)
      current = `  ${word}`
    } else current = current === "" ? word : `${current} ${word}`
  }
  return [...lines, current].join("\n")
}
