import {
  GHCB_MSR,
  MSR_GHCB,
  msrInfo,
  msrWithGfnHi,
  msrWithGfnLo,
  PAGE_SIZE,
  PSC_OP,
  pscHi,
  terminationLo
} from "@vmpl-lab/sev-es"
import { GuestException, hlt, type OperationResult, type Program, rdmsr, vmgexit, wrmsr } from "@vmpl-lab/vmpl"

/** One request and its response over the GHCB MSR. The result holds the response until the next operation. */
export function* msrCall(lo: number, hi: number): Program<OperationResult> {
  yield wrmsr(MSR_GHCB, lo, hi)
  yield vmgexit()
  return yield rdmsr(MSR_GHCB)
}

/** Asks the hypervisor to stop the guest, for a reason of a reason set. Does not return. @spec GHCB "MSR protocol" */
export function* terminate({ set, reason }: { readonly set: number; readonly reason: number }): Program<never> {
  yield* msrCall(terminationLo(set, reason), 0)
  for (;;) yield hlt()
}

/** SEV information: [min, max] protocol version and the C-bit. Raises #GP when the answer is of another kind. */
export function* sevInfo(): Program<{ min: number; max: number; cbit: number }> {
  const { lo, hi } = yield* msrCall(GHCB_MSR.SEV_INFO_REQUEST, 0)
  if (msrInfo(lo) !== GHCB_MSR.SEV_INFO_RESPONSE) throw new GuestException("#GP")
  return { max: hi >>> 16, min: hi & 0xffff, cbit: lo >>> 24 }
}

/** Page state change of one 4 KiB page. @returns true when the hypervisor has done it */
export function* pageStateChange(gpa: number, operation: number): Program<boolean> {
  const gfn = gpa / PAGE_SIZE
  const { lo, hi } = yield* msrCall(msrWithGfnLo(GHCB_MSR.PSC_REQUEST, gfn), pscHi(operation, gfn))
  return lo === GHCB_MSR.PSC_RESPONSE && hi === 0
}

/** Makes a page that was never validated shared. */
export const makeShared = (gpa: number): Program<boolean> => pageStateChange(gpa, PSC_OP.SHARED)

/** Registers the GHCB of this VMPL. @returns true when the hypervisor took the same address */
export function* registerGhcb(gpa: number): Program<boolean> {
  const gfn = gpa / PAGE_SIZE
  const { lo, hi } = yield* msrCall(msrWithGfnLo(GHCB_MSR.REGISTER_GPA_REQUEST, gfn), msrWithGfnHi(gfn))
  return lo === msrWithGfnLo(GHCB_MSR.REGISTER_GPA_RESPONSE, gfn) && hi === msrWithGfnHi(gfn)
}

/** Run VMPL over the MSR. @returns the error of the response, 0 when the level ran */
export function* runVmplMsr(vmpl: number): Program<number> {
  const { lo, hi } = yield* msrCall(GHCB_MSR.RUN_VMPL_REQUEST, vmpl)
  return msrInfo(lo) === GHCB_MSR.RUN_VMPL_RESPONSE ? hi : UNEXPECTED_RESPONSE
}

/** The response had another info code: the hypervisor did not run the level. */
export const UNEXPECTED_RESPONSE = 0xffff_ffff

/** One register (0 EAX … 3 EDX) of a CPUID leaf, as the hypervisor tells it. */
export function* cpuidRegister(leaf: number, register: number): Program<number> {
  const { lo, hi } = yield* msrCall(((register << 30) | GHCB_MSR.CPUID_REQUEST) >>> 0, leaf)
  if (msrInfo(lo) !== GHCB_MSR.CPUID_RESPONSE) throw new GuestException("#GP")
  return hi
}
