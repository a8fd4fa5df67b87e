// @ghcb msr 0x002, msr 0x004, msr 0x006, msr 0x010, msr 0x012, msr 0x014, msr 0x016, msr 0x080, msr 0x100
import {
  GHCB_MSR,
  GHCB_VERSION,
  MSR_GHCB,
  msrGfn,
  msrInfo,
  msrWithGfnHi,
  msrWithGfnLo,
  PAGE_SIZE,
  PSC_OP,
  pscHi,
  TERMINATE,
  terminationLo,
  type U64
} from "@vmpl-lab/sev-es"
import {
  GuestException,
  hlt,
  type Operation,
  type OperationResult,
  type Program,
  rdmsr,
  sequence,
  vmgexit,
  wrmsr
} from "@vmpl-lab/vmpl"

const READ_RESPONSE = rdmsr(MSR_GHCB)

const requestSequence = (lo: number, hi: number): Operation =>
  sequence([wrmsr(MSR_GHCB, lo, hi), vmgexit(), READ_RESPONSE])

/** The requests to run each VMPL, which are made with every call. */
const RUN_VMPL = [0, 1, 2, 3].map((vmpl) => requestSequence(GHCB_MSR.RUN_VMPL_REQUEST, vmpl))

/** One request and its response over the GHCB MSR. The result holds the response until the next operation. */
export function* msrCall(lo: number, hi: number): Program<OperationResult> {
  return yield requestSequence(lo, hi)
}

/** Asks the hypervisor to stop the guest, for a reason of a reason set. Does not return. @spec GHCB "MSR protocol" */
export function* terminate({ set, reason }: { readonly set: number; readonly reason: number }): Program<never> {
  yield* msrCall(terminationLo(set, reason), 0)
  for (;;) yield hlt()
}

/** SEV information: [min, max] protocol version and the C-bit. */
export interface SevInfo {
  readonly min: number
  readonly max: number
  readonly cbit: number
}

function* askSevInfo(): Program<SevInfo | null> {
  const { lo, hi } = yield* msrCall(GHCB_MSR.SEV_INFO_REQUEST, 0)
  // The code stands in [11:0], and [23:12] are reserved.
  if ((lo & 0xff_ffff) !== GHCB_MSR.SEV_INFO_RESPONSE) return null
  return { max: hi >>> 16, min: hi & 0xffff, cbit: lo >>> 24 }
}

/** SEV information. Raises #GP when the answer is of another kind. */
export function* sevInfo(): Program<SevInfo> {
  const info = yield* askSevInfo()
  if (info === null) throw new GuestException("#GP")
  return info
}

/** The highest protocol version that both sides speak. Ends the guest when there is none. */
export function* negotiateVersion(): Program<number> {
  const info = yield* askSevInfo()
  if (info === null || info.min > info.max || info.min > GHCB_VERSION.MAX || info.max < GHCB_VERSION.MIN) {
    return yield* terminate(TERMINATE.PROTOCOL_UNSUPPORTED)
  }
  return Math.min(info.max, GHCB_VERSION.MAX)
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
  const { lo, hi } = yield RUN_VMPL[vmpl] ?? requestSequence(GHCB_MSR.RUN_VMPL_REQUEST, vmpl)
  return lo === GHCB_MSR.RUN_VMPL_RESPONSE ? hi : UNEXPECTED_RESPONSE
}

/** The response was no such response, or had reserved bits: the hypervisor did not run the level. */
export const UNEXPECTED_RESPONSE = 0xffff_ffff

/** One register (0 EAX … 3 EDX) of a CPUID leaf, as the hypervisor tells it. */
export function* cpuidRegister(leaf: number, register: number): Program<number> {
  const selector = (register << 30) >>> 0
  const { lo, hi } = yield* msrCall(selector + GHCB_MSR.CPUID_REQUEST, leaf)
  if (lo >>> 0 !== selector + GHCB_MSR.CPUID_RESPONSE) throw new GuestException("#GP")
  return hi
}

/** AP reset hold: waits for a SIPI, however often the hypervisor lets go without one. #GP for any other answer. */
export function* apResetHoldMsr(): Program {
  for (;;) {
    const { lo, hi } = yield* msrCall(GHCB_MSR.AP_RESET_HOLD_REQUEST, 0)
    if (msrInfo(lo) !== GHCB_MSR.AP_RESET_HOLD_RESPONSE) throw new GuestException("#GP")
    if (msrGfn(lo, hi) !== 0) return
  }
}

/** All of [63:12]. */
const NO_PREFERENCE = 2 ** 52 - 1

/** Frames of a 52-bit address space. */
const FRAMES = 2 ** 40

/** Where the hypervisor would like the GHCB; null when it does not mind. #GP for what is no such answer. */
export function* preferredGhcb(): Program<number | null> {
  const { lo, hi } = yield* msrCall(GHCB_MSR.PREFERRED_GPA_REQUEST, 0)
  const gfn = msrGfn(lo, hi)
  if (msrInfo(lo) !== GHCB_MSR.PREFERRED_GPA_RESPONSE) throw new GuestException("#GP")
  if (gfn === NO_PREFERENCE) return null
  if (gfn >= FRAMES) throw new GuestException("#GP")
  return gfn * PAGE_SIZE
}

/** Hypervisor features, [63:12] of the response as a 52-bit mask; none in version 1, which cannot ask. */
export function* hvFeaturesMsr(version: number): Program<U64> {
  if (version < 2) return { lo: 0, hi: 0 }
  const { lo, hi } = yield* msrCall(GHCB_MSR.HV_FEATURES_REQUEST, 0)
  if (msrInfo(lo) !== GHCB_MSR.HV_FEATURES_RESPONSE) throw new GuestException("#GP")
  return { lo: ((lo >>> 12) | (hi << 20)) >>> 0, hi: hi >>> 12 }
}

/** Runs a program that may change the GHCB MSR between two instructions of another one, and puts it back. */
export function* keepingGhcbMsr<R>(program: Program<R>): Program<R> {
  const { lo, hi } = yield rdmsr(MSR_GHCB)
  try {
    return yield* program
  } finally {
    yield wrmsr(MSR_GHCB, lo, hi)
  }
}
