import { ACCEPTANCE } from "@vmpl-lab/guest"
import { type CallGroup, callJob, pagesFrom, pvalidateJob } from "./CallGroup.ts"

const MANY = 64
/** R8: size of the units. */
const UNIT = { PAGE: 0, REGION: 1 } as const

const accept = (gpa: number, units: number, size: number) =>
  callJob(ACCEPTANCE.PROTOCOL, ACCEPTANCE.CALL.ACCEPT, { rcx: gpa, rdx: units, r8: size })

/** The memory acceptance protocol, on memory that is private and was rescinded before. */
export const acceptanceCalls: CallGroup = {
  protocol: "acceptance",
  // What the core protocol's calls have validated.
  calls: ({ buffers: [list, page], region, smallRegion }) => {
    const accepted = (name: string, job: ReturnType<typeof callJob>, rescind: ReturnType<typeof callJob>) => [
      { name: "", job: () => rescind },
      { name: `ACCEPT, ${name}`, job: () => job }
    ]
    return [
      ...accepted("one page", accept(page!, 1, UNIT.PAGE), pvalidateJob(list!, pagesFrom(page!, 1, false))),
      ...accepted(
        `${MANY} pages`,
        accept(smallRegion, MANY, UNIT.PAGE),
        pvalidateJob(list!, pagesFrom(smallRegion, MANY, false))
      ),
      ...accepted(
        "2 MiB",
        accept(region, 1, UNIT.REGION),
        pvalidateJob(list!, [{ gpa: region, validate: false, is2m: true }])
      )
    ]
  }
}
