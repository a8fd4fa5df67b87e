import * as Schema from "effect/Schema"
import { ProfileSchema } from "./ProfileFile.ts"
import { ComparisonSchema, SensitivitySchema } from "./report/ReportInput.ts"
import { Scenario } from "./Scenario.ts"
import type { SchemaName } from "./SchemaNames.ts"
import { ServiceSchema } from "./service/ServiceSchema.ts"

/** A JSON value, as far as a schema goes. */
type Json = string | number | boolean | null | ReadonlyArray<Json> | { readonly [key: string]: Json }

/** Unknown keys are refused wherever a file is read, so the schema refuses them too. */
const closed = (value: Json): Json => {
  if (Array.isArray(value)) return value.map(closed)
  if (typeof value !== "object" || value === null) return value
  const entries = Object.entries(value).map(([key, inner]) => [key, closed(inner)] as const)
  const object: { readonly [key: string]: Json } = Object.fromEntries(entries)
  const { type, properties } = object
  return type === "object" && properties !== undefined ? { ...object, additionalProperties: false } : object
}

const SCHEMAS = {
  scenario: Scenario,
  profile: ProfileSchema,
  result: ComparisonSchema,
  sensitivity: SensitivitySchema,
  service: ServiceSchema
} as const satisfies { readonly [N in SchemaName]: Schema.Top }

/** Results may get further keys; files that are read must not have unknown ones. */
const OPEN: ReadonlySet<SchemaName> = new Set(["result", "sensitivity", "service"])

/**
 * The JSON schema (draft 2020-12) of a kind of file. It is generated from the schema that reads the file, and says what
 * JSON schema can say: rules between keys, such as a workload's own keys, are checked on reading.
 */
export const jsonSchema = (name: SchemaName): { readonly [key: string]: Json } => {
  const document = Schema.toJsonSchemaDocument(SCHEMAS[name])
  const shut = OPEN.has(name) ? (value: Json): Json => value : closed
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: `vmpl-lab ${name}`,
    ...(shut(document.schema as Json) as object),
    $defs: shut(document.definitions as Json)
  }
}
