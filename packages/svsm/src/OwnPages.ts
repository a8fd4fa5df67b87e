import { terminate } from "@vmpl-lab/guest"
import { PAGE_SIZE, TERMINATE } from "@vmpl-lab/sev-es"
import { type Program, pvalidate, writeBytes } from "@vmpl-lab/vmpl"

/** Validates a page of the SVSM's own. Anything but a first validation means that the host plays tricks. */
export function* validateOwn(gpa: number): Program {
  const { lo, carry } = yield pvalidate(gpa, true)
  if (lo !== 0 || carry) yield* terminate(TERMINATE.PVALIDATE)
  yield writeBytes(gpa, new Uint8Array(PAGE_SIZE))
}
