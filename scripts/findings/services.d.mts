/** Rows of the table of services, and the strategies of its columns. @param json what `service latency --json` prints */
export const serviceRows: (json: never) => {
  readonly strategies: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<string>>
}
