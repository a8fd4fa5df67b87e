/** Rows of the table of migrations. @param json what `migrate --json` prints */
export const migrationRows: (json: never) => ReadonlyArray<ReadonlyArray<string | number>>
