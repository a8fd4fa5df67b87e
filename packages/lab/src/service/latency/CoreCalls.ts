import { apVmsa, CORE_CALL, CORE_VERSION_1, PROTOCOL, pvalidateList } from "@vmpl-lab/guest"
import { type CallGroup, callJob, pagesFrom, pvalidateJob } from "./CallGroup.ts"

/** Pages of the longer list. */
const MANY = 64
/** RCX of CONFIGURE_VTOM: what is there? */
const VTOM_QUERY = 1
/** The level of the vCPU that is made and deleted, the guest's least privileged one: it never runs. */
const NEW_LEVEL = 3

const core = (call: number, rcx: number, rest: { readonly rdx?: number; readonly r8?: number } = {}) =>
  callJob(PROTOCOL.CORE, call, { rcx, ...rest })

/** The eight calls of the core protocol. */
export const coreCalls: CallGroup = {
  protocol: "core",
  setUp: ({ buffers: [list], region, smallRegion }) => [
    pvalidateJob(list!, [{ gpa: region, validate: true, is2m: true }]),
    pvalidateJob(list!, pagesFrom(smallRegion, MANY, true))
  ],
  calls: ({ buffers: [list, page], vmsaPage, callingAreas, region, smallRegion, sevFeatures }) => {
    const deposit = pvalidateList([{ gpa: page!, validate: false }])
    const vmsa = apVmsa({ vmpl: NEW_LEVEL, sevFeatures, codeBase: 0, rip: 0, argument: 0 })
    const create = { rcx: vmsaPage, rdx: page!, r8: 0 }
    const fixed = (name: string, job: ReturnType<typeof callJob>) => ({ name, job: () => job })
    return [
      {
        name: "REMAP_CA",
        job: (round) => core(CORE_CALL.REMAP_CA, callingAreas[(round + 1) % 2]!)
      },
      fixed("PVALIDATE, one page rescinded", pvalidateJob(list!, [{ gpa: page!, validate: false }])),
      fixed("PVALIDATE, one page validated", pvalidateJob(list!, [{ gpa: page!, validate: true }])),
      fixed(`PVALIDATE, ${MANY} pages rescinded`, pvalidateJob(list!, pagesFrom(smallRegion, MANY, false))),
      fixed(`PVALIDATE, ${MANY} pages validated`, pvalidateJob(list!, pagesFrom(smallRegion, MANY, true))),
      fixed("PVALIDATE, 2 MiB rescinded", pvalidateJob(list!, [{ gpa: region, validate: false, is2m: true }])),
      fixed("PVALIDATE, 2 MiB validated", pvalidateJob(list!, [{ gpa: region, validate: true, is2m: true }])),
      fixed("CREATE_VCPU", callJob(PROTOCOL.CORE, CORE_CALL.CREATE_VCPU, create, [{ gpa: vmsaPage, bytes: vmsa }])),
      fixed("DELETE_VCPU", core(CORE_CALL.DELETE_VCPU, vmsaPage)),
      fixed(
        "DEPOSIT_MEM, one page",
        callJob(PROTOCOL.CORE, CORE_CALL.DEPOSIT_MEM, { rcx: list! }, [{ gpa: list!, bytes: deposit }])
      ),
      fixed("WITHDRAW_MEM, one page", core(CORE_CALL.WITHDRAW_MEM, list!)),
      fixed("QUERY_PROTOCOL", core(CORE_CALL.QUERY_PROTOCOL, CORE_VERSION_1)),
      fixed("CONFIGURE_VTOM, query", core(CORE_CALL.CONFIGURE_VTOM, VTOM_QUERY))
    ]
  }
}
