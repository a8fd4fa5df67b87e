/** A broken invariant of the model: a bug, never an outcome of the architecture. It is not caught to carry on. */
export class ModelFault extends Error {
  override readonly name = "ModelFault"
}

/** Throws ModelFault when an invariant of the model does not hold. */
export function assert(condition: boolean, what: string): asserts condition {
  if (!condition) throw new ModelFault(what)
}
