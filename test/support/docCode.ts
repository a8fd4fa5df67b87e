import { readFileSync } from "node:fs"
import { stripTypeScriptTypes } from "node:module"

/** The one TypeScript block of a document. */
export const codeOf = (document: string): string => {
  const text = readFileSync(new URL(`../../docs/${document}`, import.meta.url), "utf8")
  const blocks = [...text.matchAll(/^```ts\n(.*?)^```$/gms)]
  if (blocks.length !== 1) throw new Error(`docs/${document} has ${blocks.length} TypeScript blocks`)
  return blocks[0]![1]!
}

/**
 * Runs a module's text and gives one of its exports. `modules` answers for each of its imports; imports of types vanish
 * with the types.
 */
export const exportOf = (code: string, name: string, modules: { readonly [from: string]: object }): unknown => {
  const plain = stripTypeScriptTypes(code)
    .replace(/^import \{([^}]*)\} from "([^"]+)"$/gm, (_, names: string, from: string) => {
      if (modules[from] === undefined) throw new Error(`${from} is not at hand`)
      const list = names.split(",").filter((each) => each.trim() !== "")
      return `const {${list.join(",")}} = modules["${from}"]`
    })
    .replace(/^export const/gm, "const")
  return new Function("modules", `"use strict"\n${plain}\nreturn ${name}`)(modules)
}
