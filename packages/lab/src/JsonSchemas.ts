import * as Schema from "effect/Schema"
import { ProfileSchema } from "./ProfileFile.ts"
import { Scenario } from "./Scenario.ts"
import type { SchemaName } from "./SchemaNames.ts"

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

/**
 * The JSON schema (draft 2020-12) of a kind of file. It is generated from the schema that reads the file, and says what
 * JSON schema can say: rules between keys, such as a workload's own keys, are checked on reading.
 */
export const jsonSchema = (name: SchemaName): { readonly [key: string]: Json } => {
  const document = Schema.toJsonSchemaDocument(name === "scenario" ? Scenario : ProfileSchema)
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: `vmpl-lab ${name}`,
    ...(closed(document.schema as Json) as object),
    $defs: closed(document.definitions as Json)
  }
}
