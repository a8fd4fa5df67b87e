import { type Action, actionText, configText, type TraceConfig } from "../trace/index.ts"
import type { Exploration } from "./Explorer.ts"
import { SMALL_MACHINE, UNCOVERED } from "./SmallMachine.ts"

/** The small machine at full size: one 2 MiB region of 512 pages, of which the trace touches the first four. */
const FULL_SIZE: TraceConfig = {
  pages: 512,
  basePfn: 0,
  vmpls: SMALL_MACHINE.vmpls,
  switches: SMALL_MACHINE.switches
}

const frame = (pfn: number): number => (pfn === UNCOVERED ? FULL_SIZE.pages : pfn)

/** The same action on the machine of full size: only the page that is not covered lies elsewhere. */
const atFullSize = (action: Action): Action => {
  const moved = "pfn" in action ? { ...action, pfn: frame(action.pfn) } : action
  return "npt" in moved && moved.npt !== null ? { ...moved, npt: { ...moved.npt, pfn: frame(moved.npt.pfn) } } : moved
}

/** An attack as a trace that `vmpl-lab replay` takes: how to get there, then the accesses that should be refused. */
export const attackTrace = ({ path, violation }: NonNullable<Exploration["attack"]>): ReadonlyArray<string> => [
  configText(FULL_SIZE),
  ...[...path, ...violation.witnesses].map((action) => actionText(atFullSize(action)))
]
