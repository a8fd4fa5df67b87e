import type { Machine } from "@vmpl-lab/lab"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { svsmRangeSize } from "@vmpl-lab/svsm"
import { type Operation, OperationResult, type Program, Sequence } from "@vmpl-lab/vmpl"

/** First address of the SVSM's range: it ends guest RAM. */
export const svsmBase = ({ vmm }: Machine): number =>
  vmm.memorySlots[0]!.pages * PAGE_SIZE - svsmRangeSize(vmm.groups.length)

/** Puts something around the program at an address; `instance` counts how often it was started. */
export const wrapProgram = (
  { hardware: { programs } }: Machine,
  address: number,
  wrap: (program: Program, instance: number) => Program
): void => {
  const entry = programs.at(address)!
  let instances = 0
  programs.install(address, () => wrap(entry(), instances++))
}

/** Runs a program with each of its operations replaced by one or more: the last result is the operation's. */
export function* replaced<R>(program: Program<R>, replace: (operation: Operation) => Program): Program<R> {
  let step = program.next(new OperationResult())
  while (step.done !== true) {
    let result: OperationResult | null = null
    const yielded: Operation = step.value
    try {
      for (const [i, operation] of (yielded instanceof Sequence ? yielded.operations : [yielded]).entries()) {
        const operations = replace(operation)
        let inner = operations.next(new OperationResult())
        while (inner.done !== true) {
          result = yield inner.value
          inner = operations.next(result)
        }
        if (yielded instanceof Sequence) yielded.outcomes?.set([result!.lo, result!.hi], 2 * i)
      }
    } catch (exception) {
      step = program.throw(exception)
      continue
    }
    step = program.next(result!)
  }
  return step.value
}

/** Runs a program and shows every operation of its, with what came of it, before the program itself goes on. */
export const traced = <R>(
  program: Program<R>,
  saw: (operation: Operation, result: OperationResult) => void
): Program<R> =>
  replaced(program, function* (operation) {
    saw(operation, yield operation)
  })
