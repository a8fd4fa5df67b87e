import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { Program } from "@vmpl-lab/vmpl"
import { svsmHeapRange } from "./Image.ts"
import { validateOwn } from "./OwnPages.ts"
import type { SvsmParameters } from "./Parameters.ts"

/**
 * The pages of the SVSM's own range that have no fixed use, between those of its CPUs and those for messages. They are
 * validated as they are taken, hence VMPL0's alone: no other level is ever granted a right to them.
 */
export class SvsmHeap {
  #taken = 0;

  /** A page of zeros for good; null when there is none left. @returns its GPA */
  *allocate(parameters: SvsmParameters): Program<number | null> {
    const { gpa, size } = svsmHeapRange(parameters)
    const page = gpa + this.#taken * PAGE_SIZE
    if (page >= gpa + size) return null
    this.#taken++
    yield* validateOwn(page)
    return page
  }
}
