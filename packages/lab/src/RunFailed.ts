import * as Schema from "effect/Schema"

/** A run could not be brought to its end, through no fault of its input. */
export class RunFailed extends Schema.TaggedError<RunFailed>()("RunFailed", { why: Schema.String }) {
  override get message(): string {
    return this.why
  }
}
