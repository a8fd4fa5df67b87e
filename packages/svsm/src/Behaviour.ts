import { SVSM_RESULT } from "@vmpl-lab/guest"
import type { GuestRange } from "./Parameters.ts"
import { EDK2_RULES, type VariableRules, VIRTFW_RULES } from "./services/uefi/VariableRules.ts"

/** Whose answers the SVSM gives where the specification and COCONUT-SVSM differ. */
export const SVSM_BEHAVIOURS = ["specification", "coconut"] as const
export type SvsmBehaviour = (typeof SVSM_BEHAVIOURS)[number]

/** The one guest level that COCONUT-SVSM is compiled for. */
export const COCONUT_GUEST_VMPL = 2

/** Everything in which the two behaviours differ: handlers ask here and never for a behaviour's name. */
export interface Behaviour {
  readonly name: SvsmBehaviour
  /** The CPUID page that the guest gets says already that there is an SVSM; else that is left to its #VC handler. */
  readonly marksCpuidPage: boolean
  /** DEPOSIT_MEM and WITHDRAW_MEM are served, else UNSUPPORTED_CALL. */
  readonly exchangesMemory: boolean
  /** What CREATE_VCPU answers for an address that is not 4 KiB aligned. */
  readonly misalignedVcpu: number
  /** The one level that a new VMSA may have; null: the caller's or a less privileged one. */
  readonly vcpuLevel: number | null
  /** A new VMSA's SEV_FEATURES must be the start-up vCPU's, else the caller's. */
  readonly comparesStartUpFeatures: boolean
  /** CREATE_VCPU clears the new vCPU's calling area. */
  readonly clearsNewArea: boolean
  /** A VMSA that begins a 2 MiB region is refused, for an erratum of the hardware. */
  readonly refusesAlignedVmsa: boolean
  /** DELETE_VCPU refuses VMSAs more privileged than the caller. */
  readonly guardsPrivilegedVmsas: boolean
  /** DELETE_VCPU tells of a VMSA that runs. COCONUT-SVSM has no answer: it stops. */
  readonly knowsRunningVmsas: boolean
  /** Levels that lose their rights. */
  readonly revokedLevels: ReadonlyArray<number>
  /** Levels that are granted full rights on behalf of a caller. */
  readonly grantedLevels: (callerVmpl: number) => ReadonlyArray<number>
  /** Memory that is not cleared after its validation; of size 0 where all is. */
  readonly notCleared: GuestRange
  /** A long PVALIDATE list may be answered with INCOMPLETE before its end. */
  readonly servesListsInParts: boolean
  /** No page is validated that is known to be: the hardware is not asked. */
  readonly refusesDoubleValidation: boolean
  /** What the attestation protocol answers for a call that it does not have. */
  readonly unknownAttestationCall: number
  /** What attestation answers for a structure or a nonce, and the vTPM for a first word, that it cannot read. */
  readonly unreadableArgument: number
  /** The host is asked to fill all of the SVSM's room for certificates, and the guest must take all of it. */
  readonly handsOnWholeCertificateRoom: boolean
  /** A TPM's response that has no room in the buffer is refused; COCONUT-SVSM leaves the request there and succeeds. */
  readonly refusesLongResponse: boolean
  /** What DELETE_VCPU answers where RMPADJUST fails: null is the instruction's own result. */
  readonly failedDelete: number | null
  /** An NMI for another CPU by its physical ID arrives as one; COCONUT-SVSM posts its vector instead. */
  readonly sendsPhysicalNmi: boolean
  /** PPR is all of the vector in service where that is of the higher class, else its class alone. */
  readonly showsVectorInPpr: boolean
  /** TPR keeps all 8 bits; COCONUT-SVSM has no room but for the four of CR8. */
  readonly keepsTprSubclass: boolean
  /** call_pending is cleared when RAX is written, else before the call is served. */
  readonly clearsPendingAfterRax: boolean
  /** A call_pending that is neither 0 nor 1 is INVALID_FORMAT, else a pending call. */
  readonly checksPending: boolean
  /** All TLBs are flushed before the guest runs again, whatever was called. */
  readonly flushesBeforeGuest: boolean
  /** REMAP_CA to the area in use succeeds; COCONUT-SVSM finds it taken. */
  readonly remapsToSameArea: boolean
  /** Byte 2 of the calling area spares EOI calls; it is reserved in the specification. */
  readonly lazyEoi: boolean
  /** CONFIGURE_VTOM looks at the bits that must be zero. */
  readonly checksVtomBits: boolean
  readonly uefiMm: UefiMmBehaviour
}

/** The UEFI MM protocol, of which the specification says nothing: there its general rules hold. */
export interface UefiMmBehaviour {
  /** Address and alignment come before the size and are INVALID_ADDRESS; else all else comes before the address. */
  readonly addressFirst: boolean
  /** All of the buffer must be the caller's, else only what its message takes. */
  readonly wholeBuffer: boolean
  /** How the variable service behind it answers. */
  readonly rules: VariableRules
}

const upTo = (vmpl: number): ReadonlyArray<number> => Array.from({ length: vmpl }, (_, i) => i + 1)

const GRANTED = [[], upTo(1), upTo(2), upTo(3)] as const
const COCONUT_GRANTED = [COCONUT_GUEST_VMPL] as const

/** Both behaviours, by name. */
export const BEHAVIOUR: { readonly [B in SvsmBehaviour]: Behaviour } = {
  specification: {
    name: "specification",
    marksCpuidPage: false,
    exchangesMemory: true,
    misalignedVcpu: SVSM_RESULT.INVALID_PARAMETER,
    vcpuLevel: null,
    comparesStartUpFeatures: true,
    clearsNewArea: true,
    refusesAlignedVmsa: true,
    guardsPrivilegedVmsas: true,
    knowsRunningVmsas: true,
    revokedLevels: [1, 2, 3],
    grantedLevels: (callerVmpl) => GRANTED[callerVmpl] ?? [],
    notCleared: { gpa: 0, size: 0 },
    servesListsInParts: true,
    refusesDoubleValidation: true,
    unknownAttestationCall: SVSM_RESULT.UNSUPPORTED_CALL,
    unreadableArgument: SVSM_RESULT.INVALID_ADDRESS,
    handsOnWholeCertificateRoom: false,
    refusesLongResponse: true,
    failedDelete: null,
    sendsPhysicalNmi: true,
    showsVectorInPpr: false,
    keepsTprSubclass: true,
    clearsPendingAfterRax: true,
    checksPending: true,
    flushesBeforeGuest: false,
    remapsToSameArea: true,
    lazyEoi: false,
    checksVtomBits: true,
    uefiMm: { addressFirst: false, wholeBuffer: true, rules: EDK2_RULES }
  },
  coconut: {
    name: "coconut",
    marksCpuidPage: true,
    exchangesMemory: false,
    misalignedVcpu: SVSM_RESULT.INVALID_ADDRESS,
    vcpuLevel: COCONUT_GUEST_VMPL,
    comparesStartUpFeatures: false,
    clearsNewArea: false,
    refusesAlignedVmsa: false,
    guardsPrivilegedVmsas: false,
    knowsRunningVmsas: false,
    revokedLevels: [2, 3],
    grantedLevels: () => COCONUT_GRANTED,
    notCleared: { gpa: 0xa_0000, size: 0x6_0000 },
    servesListsInParts: false,
    refusesDoubleValidation: false,
    unknownAttestationCall: SVSM_RESULT.UNSUPPORTED_PROTOCOL,
    unreadableArgument: SVSM_RESULT.INVALID_PARAMETER,
    handsOnWholeCertificateRoom: true,
    refusesLongResponse: false,
    failedDelete: SVSM_RESULT.INVALID_ADDRESS,
    sendsPhysicalNmi: false,
    showsVectorInPpr: true,
    keepsTprSubclass: false,
    clearsPendingAfterRax: false,
    checksPending: false,
    flushesBeforeGuest: true,
    remapsToSameArea: false,
    lazyEoi: true,
    checksVtomBits: false,
    uefiMm: { addressFirst: true, wholeBuffer: false, rules: VIRTFW_RULES }
  }
}
