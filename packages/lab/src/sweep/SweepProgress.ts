import { performance } from "node:perf_hooks"
import * as Effect from "effect/Effect"
import { progressBar } from "../Progress.ts"

/** Without a terminal a line is printed at most this often. */
const LINE_MS = 10_000

/** Seconds as a reader wants them: `45 s`, `12 min`, `3 h 20 min`. */
export const timeText = (seconds: number): string => {
  if (seconds < 90) return `${Math.ceil(seconds)} s`
  const minutes = Math.ceil(seconds / 60)
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** Plain lines with the time left, judged by the points done since the start. */
const progressLines = (): ((done: number, total: number) => void) => {
  const begin = performance.now()
  let printed = begin
  let before: number | null = null
  return (done, total) => {
    before ??= done
    const now = performance.now()
    if (now - printed < LINE_MS || done === before || done === total) return
    printed = now
    const left = ((now - begin) / (done - before)) * (total - done)
    process.stderr.write(`vmpl-lab: ${done} of ${total} points, ${timeText(left / 1000)} left\n`)
  }
}

/** A bar on a terminal, lines otherwise; both on standard error. */
export const sweepProgress = Effect.suspend(() =>
  process.stderr.isTTY === true ? progressBar : Effect.succeed(progressLines())
)
