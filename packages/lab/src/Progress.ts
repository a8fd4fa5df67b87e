import { performance } from "node:perf_hooks"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** A run shorter than this shows no bar. */
const SILENT_MS = 1_000

/**
 * A progress bar on standard error, for terminals and long runs only. The bar goes away with its scope, interrupted or
 * not; the callback is cheap enough to be called often.
 */
export const progressBar: Effect.Effect<(done: number, total: number) => void, never, Scope.Scope> = Effect.gen(
  function* () {
    if (process.stderr.isTTY !== true) return () => {}
    const { default: progress } = yield* Effect.promise(() => import("cli-progress"))
    const bar = new progress.SingleBar({
      format: "{bar} {percentage} %, {eta_formatted} left",
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
      gracefulExit: false
    })
    const begin = performance.now()
    let started = false
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        if (started) bar.stop()
      })
    )
    return (done: number, total: number) => {
      if (started) {
        bar.setTotal(total)
        bar.update(done)
      } else if (performance.now() - begin > SILENT_MS) {
        bar.start(total, done)
        started = true
      }
    }
  }
)
