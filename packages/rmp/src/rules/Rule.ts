import type { SwitchId } from "../Switches.ts"

/**
 * One check of the architecture, by itself: the same decision as in the fast code, which fuses them. Made to be read,
 * to explain an outcome, and to be left out by an explorer that wants to see what it is for.
 */
export interface Rule<Question> {
  /** AMD's name where there is one. */
  readonly name: string
  /** Document and section, as after `@spec`. */
  readonly source: string
  /** Switches on which the outcome hangs. */
  readonly switches?: ReadonlyArray<SwitchId>
  /** The fault or return code with which the rule refuses; null where it lets pass. */
  readonly refuses: (question: Question) => number | null
}

/** Rules in the order in which they decide, and what follows when all let pass. */
export interface Rules<Question> {
  readonly checks: ReadonlyArray<Rule<Question>>
  readonly success: { readonly name: string; readonly source: string; readonly outcome: (question: Question) => number }
}

/** Which rule decided, and how. */
export interface Decision {
  readonly rule: string
  readonly source: string
  readonly switches: ReadonlyArray<SwitchId>
  /** A fault, or a return code with CARRY; FAULT.NONE for an access that passes. */
  readonly outcome: number
}

const NOTHING: ReadonlySet<string> = new Set()

/** The first rule that refuses decides. Rules named in `without` are not asked. */
export const decide = <Question>(
  rules: Rules<Question>,
  question: Question,
  without: ReadonlySet<string> = NOTHING
): Decision => {
  for (const { name, source, switches = [], refuses } of rules.checks) {
    if (without.has(name)) continue
    const outcome = refuses(question)
    if (outcome !== null) return { rule: name, source, switches, outcome }
  }
  const { name, source, outcome } = rules.success
  return { rule: name, source, switches: [], outcome: outcome(question) }
}
