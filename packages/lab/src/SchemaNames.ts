/** Kinds of files that have a JSON schema: two that are read, and what some commands print with `--json`. */
export const SCHEMA_NAMES = ["scenario", "profile", "result", "sensitivity", "service"] as const
export type SchemaName = (typeof SCHEMA_NAMES)[number]
