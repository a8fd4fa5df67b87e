export type CommandName = string
/** What the commands printed or wrote, by name. */
export type Results = { readonly [name: CommandName]: unknown }
export const COMMANDS: { readonly [name: CommandName]: string }
export const wordsOf: (command: string) => ReadonlyArray<string>
export const printsJson: (command: string) => boolean
