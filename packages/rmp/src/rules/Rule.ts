import type { Rmp } from "../Rmp.ts"
import type { SwitchChoice, SwitchId } from "../Switches.ts"

/**
 * One check of the architecture, by itself: the same decision as in the fast code, which fuses them. Made to be read,
 * to explain an outcome, and to be left out by an explorer that wants to see what it is for.
 */
export interface Rule<Question> {
  /** AMD's name where there is one. */
  readonly name: string
  /** Document and section, as after `@spec`. */
  readonly source: string
  /** Switches that the rule reads. */
  readonly switches?: ReadonlyArray<SwitchId>
  /** The fault or return code with which the rule refuses; null where it lets pass. */
  readonly refuses: (question: Question) => number | null
}

/** What follows when all rules let pass. */
export interface Success<Question> {
  readonly name: string
  readonly source: string
  /** Switches that `note` reads. */
  readonly switches?: ReadonlyArray<SwitchId>
  readonly outcome: (question: Question) => number
  /** What the instruction will write or show, where that hangs on a switch. */
  readonly note?: (question: Question) => string
}

/** Rules in the order in which they decide. */
export interface Rules<Question> {
  readonly checks: ReadonlyArray<Rule<Question>>
  readonly success: Success<Question>
}

/** Which rule decided, and how. */
export interface Decision {
  readonly rule: string
  readonly source: string
  /** Switches that the rule reads. Those on which the outcome hangs, by way of other rules too, are `switchesOf`. */
  readonly switches: ReadonlyArray<SwitchId>
  /** A fault, or a return code with CARRY; FAULT.NONE for an access that passes. */
  readonly outcome: number
  /** What success writes or shows, where that hangs on a switch; null elsewhere. */
  readonly note: string | null
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
    if (outcome !== null) return { rule: name, source, switches, outcome, note: null }
  }
  const { name, source, switches = [], outcome, note } = rules.success
  return { rule: name, source, switches, outcome: outcome(question), note: note?.(question) ?? null }
}

const declaredBy = <Question>({ checks, success }: Rules<Question>): ReadonlySet<SwitchId> =>
  new Set([...checks, success].flatMap(({ switches = [] }) => switches))

/** The same table with one switch the other way. */
const flipped = (rmp: Rmp, id: SwitchId): Rmp => {
  const other: SwitchChoice = rmp.switches[id] === "default" ? "alternative" : "default"
  return Object.create(rmp, { switches: { value: { ...rmp.switches, [id]: other } } })
}

/**
 * Switches on which the outcome hangs: those that, the other way by themselves, would give another outcome or note.
 * That the deciding rule reads a switch is neither needed, since one may move a check to the front or let an earlier
 * rule refuse, nor enough.
 */
export const switchesOf = <Question extends { readonly rmp: Rmp }>(
  rules: Rules<Question>,
  question: Question,
  without: ReadonlySet<string> = NOTHING
): ReadonlyArray<SwitchId> => {
  const { outcome, note } = decide(rules, question, without)
  return [...declaredBy(rules)].filter((id) => {
    const other = decide(rules, { ...question, rmp: flipped(question.rmp, id) }, without)
    return other.outcome !== outcome || other.note !== note
  })
}
