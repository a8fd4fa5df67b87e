import type { CommandName, Results } from "./commands.mjs"

export const results: (names: ReadonlyArray<CommandName>, say?: (line: string) => void) => Promise<Results>
