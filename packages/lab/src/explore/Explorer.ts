import type { Action } from "../trace/Action.ts"
import { TraceMachine } from "../trace/TraceMachine.ts"
import { type CHECKS, fullCheck, type Violation, violationOf, weakenedCheck } from "./Properties.ts"
import { ACTIONS, SMALL_MACHINE } from "./SmallMachine.ts"
import { decodeState, encodeState } from "./StateKey.ts"
import { StateSet } from "./StateSet.ts"
import { brokenByChange } from "./Transitions.ts"

/** What an exploration found. */
export interface Exploration {
  /** States that can be reached, the first included. */
  readonly states: number
  /** Actions tried in them that led to another state or back. */
  readonly transitions: number
  /** Actions on the longest of the shortest paths to a state. */
  readonly depth: number
  /** Instructions and commands that changed something in some state. */
  readonly effective: ReadonlyArray<string>
  /** The first property that does not hold, with a shortest path to where it does not; null when all hold. */
  readonly attack: { readonly violation: Violation; readonly path: ReadonlyArray<Action> } | null
}

export interface ExplorerOptions {
  /** A check of the access table that is switched off, such as `Reverse-Map` or `Hypervisor-Owned/host`. */
  readonly without?: (typeof CHECKS)[number]
}

const PROGRESS_STATES = 4096

/** GPAs that a guest's PVALIDATE concerns, as bits of the history. */
const historyBits = (asid: number, gfn: number, size: number): number =>
  (size === 1 ? 0xf : 1 << gfn) << ((asid - 1) * 4)

const nameOf = (action: Action): string => (action.op === "firmware" ? action.command : action.op)

/** Honest software at VMPL0 does not validate a GPA again. */
const isRefusedByGuest = (action: Action, history: number): boolean => {
  if (action.op !== "pvalidate" || action.vmpl > 0 || !action.validate) return false
  return (history & historyBits(action.asid, action.gfn, action.size)) !== 0
}

/** What a PVALIDATE that changed something adds to the history. */
const validatedBy = (action: Action): number =>
  action.op === "pvalidate" && action.validate ? historyBits(action.asid, action.gfn, action.size) : 0

/**
 * Visits every state of the small machine, breadth first. The guests' software keeps one rule: VMPL0 validates no GPA
 * twice. The host may do anything.
 */
export class Explorer {
  readonly #machine = new TraceMachine(SMALL_MACHINE)
  readonly #before = new Int32Array(this.#machine.rmp.snapshotWords)
  readonly #after = new Int32Array(this.#machine.rmp.snapshotWords)
  readonly #effective = new Set<string>()
  readonly #states = new StateSet()
  readonly #options: ExplorerOptions

  constructor(options: ExplorerOptions = {}) {
    this.#options = options
  }

  /** Explores to the end. */
  run(): Exploration {
    const steps = this.explore()
    for (;;) {
      const step = steps.next()
      if (step.done === true) return step.value
    }
  }

  /** Explores; yields now and then how many of the states known so far have been visited. */
  *explore(): Generator<{ readonly visited: number; readonly known: number }, Exploration, void> {
    const { without } = this.#options
    const passes = without === undefined ? fullCheck(this.#machine) : weakenedCheck(this.#machine, without)
    const { rmp } = this.#machine
    let transitions = 0
    rmp.saveEntries(this.#before)
    this.#states.add(encodeState(this.#before, 0), -1, -1)
    for (let state = 0; state < this.#states.size; state++) {
      if (state % PROGRESS_STATES === 0) yield { visited: state, known: this.#states.size }
      const history = decodeState(this.#states.key(state), this.#before)
      rmp.restoreEntries(this.#before)
      const violation = violationOf(this.#machine, history, passes, without !== undefined)
      if (violation !== null) return this.#result(transitions, { violation, path: this.#pathTo(state) })
      for (let number = 0; number < ACTIONS.length; number++) {
        const action = ACTIONS[number]!
        if (isRefusedByGuest(action, history)) continue
        this.#machine.apply(action)
        rmp.saveEntries(this.#after)
        if (!this.#hasChanged()) continue
        transitions++
        this.#effective.add(nameOf(action))
        const property = brokenByChange(action, this.#before, this.#after)
        if (property !== null) {
          const path = [...this.#pathTo(state), action]
          return this.#result(transitions, { violation: { property, witnesses: [] }, path })
        }
        this.#states.add(encodeState(this.#after, history | validatedBy(action)), state, number)
        rmp.restoreEntries(this.#before)
      }
    }
    return this.#result(transitions, null)
  }

  #hasChanged(): boolean {
    for (let word = 0; word < this.#before.length; word++) if (this.#before[word] !== this.#after[word]) return true
    return false
  }

  #pathTo(state: number): ReadonlyArray<Action> {
    const path: Array<Action> = []
    for (let at = state; this.#states.from(at) >= 0; at = this.#states.from(at))
      path.push(ACTIONS[this.#states.by(at)]!)
    return path.reverse()
  }

  #result(transitions: number, attack: Exploration["attack"]): Exploration {
    const depths: Array<number> = []
    for (let state = 0; state < this.#states.size; state++)
      depths.push(state === 0 ? 0 : depths[this.#states.from(state)]! + 1)
    const depth = depths.reduce((a, b) => Math.max(a, b), 0)
    return { states: this.#states.size, transitions, depth, effective: [...this.#effective].sort(), attack }
  }
}
