export interface SvsmCheck {
  readonly id: string
  readonly call: string
  readonly check: string
  readonly specification: string
  readonly coconut: string
  /** Where it is said, parted by semicolons. */
  readonly source: string
  readonly deviation?: number
  readonly coconutStops?: boolean
  readonly tests: ReadonlyArray<string>
}
export const checks: () => ReadonlyArray<SvsmCheck>
export const document: () => string
