/** Kinds of files that have a JSON schema. */
export const SCHEMA_NAMES = ["scenario", "profile"] as const
export type SchemaName = (typeof SCHEMA_NAMES)[number]
