/** Text that is markup already: everything else is escaped where it is put in. */
export class Html {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

/** What may stand between the markup of a template. */
export type Part = string | number | Html | null | ReadonlyArray<Part>

const ENTITIES: { readonly [character: string]: string } = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;"
}

// Control characters have no place in a document, and make it invalid.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufffe\uffff]/g

/** Text for an element's content or a quoted attribute: it can end neither. */
export const escapeHtml = (text: string): string =>
  text.replace(FORBIDDEN, "\ufffd").replace(/[&<>"']/g, (character) => ENTITIES[character]!)

const textOf = (part: Part): string => {
  if (part === null) return ""
  if (part instanceof Html) return part.text
  if (typeof part === "object") return part.map(textOf).join("")
  return escapeHtml(String(part))
}

/** Markup in which every value is escaped, unless it is markup itself. */
export const html = (markup: TemplateStringsArray, ...parts: ReadonlyArray<Part>): Html =>
  new Html(markup.map((piece, i) => (i === 0 ? piece : textOf(parts[i - 1]!) + piece)).join(""))
