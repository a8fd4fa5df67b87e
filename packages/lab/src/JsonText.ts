import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as SchemaIssue from "effect/SchemaIssue"
import { InputInvalid, oneLine, shown } from "./InputInvalid.ts"

/** A place inside a JSON document, written as `primitives.ioctl.ns` or `sums[0].primitives[1]`. */
const pathText = (path: ReadonlyArray<PropertyKey>): string =>
  path.reduce<string>((text, key) => {
    if (typeof key === "number" || /^\d+$/.test(String(key))) return `${text}[${String(key)}]`
    return text === "" ? String(key) : `${text}.${String(key)}`
  }, "")

const valueAt = (root: unknown, path: ReadonlyArray<PropertyKey>): unknown =>
  path.reduce<unknown>(
    (value, key) => (typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined),
    root
  )

/**
 * The first key that one object holds twice, as a path; null when there is none. JSON.parse would keep the last one
 * without a word. `text` must be valid JSON.
 */
export const duplicateKey = (text: string): string | null => {
  // One frame per open object or array: the keys seen, and the current key or element.
  const frames: Array<{ readonly keys: Set<string> | null; at: PropertyKey; expectKey: boolean }> = []
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],]/g)) {
    const top = frames.at(-1)
    if (token === "{") frames.push({ keys: new Set(), at: "", expectKey: true })
    else if (token === "[") frames.push({ keys: null, at: 0, expectKey: false })
    else if (token === "}" || token === "]") frames.pop()
    else if (top === undefined) continue
    else if (token === ",") {
      if (top.keys === null) top.at = Number(top.at) + 1
      else top.expectKey = true
    } else if (top.keys !== null && top.expectKey) {
      const key: string = JSON.parse(token)
      top.at = key
      top.expectKey = false
      if (top.keys.has(key)) return pathText(frames.map((frame) => frame.at))
      top.keys.add(key)
    }
  }
  return null
}

/** The innermost first issue, with the path that leads to it and the message of the check that failed, if it has one. */
const firstLeaf = (
  issue: SchemaIssue.Issue,
  path: ReadonlyArray<PropertyKey>,
  expected: string | undefined
): {
  readonly path: ReadonlyArray<PropertyKey>
  readonly issue: SchemaIssue.Issue
  readonly expected: string | undefined
} => {
  switch (issue._tag) {
    case "Filter":
      return firstLeaf(issue.issue, path, annotation(issue.filter.annotations) ?? expected)
    case "Encoding":
      return firstLeaf(issue.issue, path, expected)
    case "Pointer":
      return firstLeaf(issue.issue, [...path, ...issue.path], expected)
    case "Composite":
      return firstLeaf(issue.issues[0], path, expected)
    case "AnyOf":
      return issue.issues[0] === undefined
        ? { path, issue, expected: annotation(issue.ast.annotations) ?? literals(issue.ast) ?? expected }
        : firstLeaf(issue.issues[0], path, expected)
    case "InvalidType":
      return { path, issue, expected: annotation(issue.ast.annotations) ?? typeName(issue.ast._tag) }
    case "InvalidValue":
      return { path, issue, expected: annotation(issue.annotations) ?? expected }
    default:
      return { path, issue, expected }
  }
}

const annotation = (
  annotations: { readonly message?: unknown; readonly expected?: unknown } | undefined
): string | undefined => {
  const text = annotations?.message ?? annotations?.expected
  return typeof text === "string" ? text : undefined
}

const TYPE_NAMES: { readonly [tag: string]: string } = {
  String: "a text",
  Number: "a number",
  Objects: "an object",
  Arrays: "an array"
}

/** `one of "page", "msr"` for a choice between literals. */
const literals = (ast: SchemaIssue.AnyOf["ast"]): string | undefined => {
  const values = ast.types.map((type) => (type._tag === "Literal" ? JSON.stringify(type.literal) : undefined))
  return values.includes(undefined) ? undefined : `one of ${values.join(", ")}`
}

const knownKeys = (ast: SchemaIssue.UnexpectedKey["ast"]): string => {
  if (ast._tag === "Arrays") return `${ast.elements.length} elements`
  const names = ast._tag === "Objects" ? ast.propertySignatures.map((property) => String(property.name)) : []
  return names.length > 12 ? `only the ${names.length} known keys` : `only ${names.join(", ")}`
}

const typeName = (tag: string): string => TYPE_NAMES[tag] ?? "another value"

/**
 * JSON text to a typed value. Schema messages say what is expected ("a whole number ..."); the line adds file, path and
 * the value found.
 *
 * @param onExcessProperty "ignore" drops unknown keys instead of refusing them: for results, which may have more
 * @returns InputInvalid for text that is not JSON, a key given twice, an unknown or missing key, a value that the schema
 *   refuses: always the first trouble only, in one line.
 */
export const decodeJsonText = <S extends Schema.ConstraintDecoder<unknown>>(
  schema: S,
  file: string,
  text: string,
  onExcessProperty: "error" | "ignore" = "error"
): Result.Result<S["Type"], InputInvalid> => {
  const fail = (what: string) => Result.fail(new InputInvalid({ line: oneLine(`${file}: ${what}`) }))
  let raw: unknown
  try {
    raw = JSON.parse(text)
  } catch (cause) {
    return fail(`not valid JSON: ${cause instanceof Error ? cause.message : String(cause)}`)
  }
  const twice = duplicateKey(text)
  if (twice !== null) return fail(`${twice}: key given twice, expected once`)

  const decoded = Schema.decodeUnknownResult(schema, { onExcessProperty })(raw)
  if (Result.isSuccess(decoded)) return Result.succeed(decoded.success)
  const { path, issue, expected } = firstLeaf(decoded.failure.issue, [], undefined)
  const where = path.length === 0 ? "" : `${pathText(path)}: `
  if (issue._tag === "UnexpectedKey") {
    return fail(`${where}unknown key with value ${shown(valueAt(raw, path))}, expected ${knownKeys(issue.ast)}`)
  }
  if (issue._tag === "MissingKey") return fail(`${where}missing, expected this key`)
  return fail(`${where}expected ${expected ?? "another value"}, got ${shown(valueAt(raw, path))}`)
}
