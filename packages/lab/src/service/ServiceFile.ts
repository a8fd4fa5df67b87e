import { registerHooks } from "node:module"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { reason } from "../InputFile.ts"
import { InputInvalid, oneLine } from "../InputInvalid.ts"
import { serviceTrouble } from "./CheckService.ts"
import type { Service } from "./Define.ts"

/** What a service's file imports from this project, wherever the file is. */
const OURS = /^(?:@vmpl-lab\/|effect(?:$|\/))/

const invalid = (path: string, why: string) => new InputInvalid({ line: oneLine(`${path}: ${why}`) })

/** A file's default export as it is; its imports of this project and of Effect lead to what runs here. */
const importOf = async (path: string): Promise<unknown> => {
  const hooks = registerHooks({
    resolve: (specifier, context, next) =>
      next(specifier, OURS.test(specifier) ? { ...context, parentURL: import.meta.url } : context)
  })
  try {
    const module: { readonly default?: unknown } = await import(pathToFileURL(resolve(path)).href)
    return module.default
  } finally {
    hooks.deregister()
  }
}

/**
 * The service in a TypeScript or JavaScript file: its default export.
 * @returns InputInvalid when there is no such file, it does not run, or what it exports is no service
 */
export const loadService = Effect.fn("loadService")(function* (path: string) {
  const fs = yield* FileSystem.FileSystem
  const { type } = yield* fs
    .stat(path)
    .pipe(Effect.catchTag("PlatformError", (error) => invalid(path, `cannot be read: ${reason(error)}`)))
  if (type !== "File") return yield* invalid(path, "no file, expected one of TypeScript or JavaScript")
  const service = yield* Effect.tryPromise({
    try: () => importOf(path),
    catch: (cause) => invalid(path, `cannot be run: ${cause instanceof Error ? cause.message : String(cause)}`)
  })
  const trouble = serviceTrouble(service)
  if (trouble !== undefined) return yield* invalid(path, trouble)
  return service as Service
})
