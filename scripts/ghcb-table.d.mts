export interface GhcbTableEvent {
  readonly event: string
  readonly title: string
  readonly version: number
  readonly refused?: string
  readonly handlers: ReadonlyArray<string>
  readonly senders: ReadonlyArray<string>
  readonly tests: ReadonlyArray<string>
}
export const events: () => ReadonlyArray<GhcbTableEvent>
export const document: () => string
