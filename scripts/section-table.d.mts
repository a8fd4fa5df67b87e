/** A section of the facts with what covers it. */
export interface Section {
  readonly section: string
  readonly title: string
  readonly without?: string
  readonly code: ReadonlyArray<string>
  readonly tests: ReadonlyArray<string>
}
export const sections: () => ReadonlyArray<Section>
export const document: () => string
