import * as Schema from "effect/Schema"

const hexBytes = (size: number) =>
  Schema.String.pipe(Schema.check(Schema.isPattern(new RegExp(`^[0-9a-f]{${2 * size}}$`))))

/** `evidence.json`: what was asked for, beside what was answered. */
export const EvidenceFile = Schema.Struct({
  format: Schema.Literal(1),
  /** Which key has signed; its certificate is in `vcek.pem` or `vlek.pem`. */
  key: Schema.Literals(["VCEK", "VLEK"]),
  vmpl: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 3 }))),
  /** 64 bytes. */
  nonce: hexBytes(64),
  /** Launch digest that was expected before the launch, 48 bytes. */
  measurement: hexBytes(48),
  /** A manifest is in `manifest.bin`, and the report is bound to it. */
  manifest: Schema.Boolean,
  /** GUID of the one service that was asked for; null: all, or none. */
  service: Schema.NullOr(Schema.String)
})
export type EvidenceFile = typeof EvidenceFile.Type

/** Bytes beyond which a file of evidence is refused unread. */
export const EVIDENCE_BYTES_MAX = 1 << 20
