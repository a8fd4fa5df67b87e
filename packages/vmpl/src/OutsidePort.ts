import { Outside, type Program } from "./Operation.ts"

/** What a program asks of somebody outside of the simulation; `answer` is theirs to fill in. */
export interface Question<Ask, Answer> {
  readonly ask: Ask
  /** Undefined until there is one. */
  answer: Answer | undefined
}

/**
 * Where programs and the world outside of the simulation meet. Whoever steps the machine looks after each event whether
 * a question is open, and goes on once it is answered: what is simulated depends on the answers alone, not on when they
 * came.
 */
export class OutsidePort<Ask, Answer> {
  readonly #open: Array<Question<Ask, Answer>> = []

  /** The oldest question without an answer. */
  get open(): Question<Ask, Answer> | undefined {
    return this.#open[0]
  }

  /** Asks, and stands still until there is an answer. Takes no virtual time. */
  *ask(ask: Ask): Program<Answer> {
    const question: Question<Ask, Answer> = { ask, answer: undefined }
    this.#open.push(question)
    yield new Outside(() => question.answer !== undefined)
    return question.answer!
  }

  /** Answers the oldest open question. */
  answer(answer: Answer): void {
    this.#open.shift()!.answer = answer
  }
}
