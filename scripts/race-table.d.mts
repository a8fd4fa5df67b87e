/** A schedule that breaks an SVSM without one of its mechanisms. */
export interface RaceFinding {
  readonly file: string
  readonly calls: readonly [string, string]
  readonly start: string
  readonly without: string
  readonly behaviour?: string
  readonly violation: string
}
export const findings: () => ReadonlyArray<RaceFinding>
export const document: () => string
