import { errnoText } from "./os/Errno.ts"

/** A live measurement cannot be had, or not go on. `why` is one line that names the call and the errno, or the exit. */
export class LiveFailed extends Error {
  readonly _tag = "LiveFailed"
  readonly why: string

  constructor({ why }: { readonly why: string }) {
    super(why)
    this.why = why
  }
}

/**
 * The result of a call when it is not an errno.
 * @throws LiveFailed naming the call and the errno
 */
export const must = (call: string, result: number): number => {
  if (result < 0) throw new LiveFailed({ why: `${call} fails with ${errnoText(-result)}` })
  return result
}
