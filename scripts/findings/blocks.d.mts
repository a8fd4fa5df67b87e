import type { CommandName, Results } from "./commands.mjs"

/** A generated part: the commands whose results it needs, and its Markdown. */
export interface Block {
  readonly needs: ReadonlyArray<CommandName>
  readonly make: (results: Results) => string
}
export const BLOCKS: {
  readonly [name: string]: Block
  readonly interrupts: Block
  readonly levels: Block
  readonly services: Block
  readonly migration: Block
}
export const README_BLOCK: Block
