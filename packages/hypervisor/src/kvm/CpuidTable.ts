// @section 4.4
import { NUM_VMPLS } from "@vmpl-lab/rmp"
import {
  type CpuidRegisters,
  encodeSevCapabilities,
  HV_FEATURE,
  SEV_CAPABILITY_BITS,
  type SevCapabilities,
  type SevCapability
} from "@vmpl-lab/sev-es"

/** Position of the C-bit on EPYC. */
export const CBIT_POSITION = 51

/** GHCB hypervisor features that this KVM offers: SNP, AP creation, multi-VMPL. */
export const HV_FEATURES = HV_FEATURE.SNP | HV_FEATURE.AP_CREATION | HV_FEATURE.MULTI_VMPL

/** What the default machine's processor cannot do of what AMD has defined. */
const MISSING: ReadonlySet<SevCapability> = new Set(["PageFlushMsr", "SvsmCommPageMsr", "NestedVirtSnpMsr"])

/** An EPYC 9005 with 1006 encrypted guests; ASIDs 1 to 99 are for SEV-ES and SNP, as the platform's owner has set it. */
export const HOST_SEV: SevCapabilities = {
  has: new Set(SEV_CAPABILITY_BITS.filter((name) => !MISSING.has(name))),
  cbitPosition: CBIT_POSITION,
  physicalAddressReduction: 6,
  numVmpls: NUM_VMPLS,
  coherencySfwNo: false,
  guests: 1006,
  minSevNoEsAsid: 100
}

const SEV_CAPABILITIES = encodeSevCapabilities(HOST_SEV)

/** Host CPUID as KVM passes it on: EAX, EBX, ECX, EDX by leaf. Leaves that are not here read as zero. */
const LEAVES: ReadonlyMap<number, CpuidRegisters> = new Map<number, CpuidRegisters>([
  [0x0000_0000, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]],
  [0x8000_0000, [0x8000_001f, 0x6874_7541, 0x444d_4163, 0x6974_6e65]],
  [0x8000_001f, SEV_CAPABILITIES]
])

/** Family 25, model 17, stepping 1, as EPYC 9004 has it. */
const SIGNATURE = 0x00a1_0f11

/** Bytes of the XSAVE area with x87 and SSE state alone, and with AVX too. */
const XSAVE_LEGACY = 0x240
const XSAVE_AVX = 0x340
const XCR0_AVX = 4

/**
 * A leaf with its subleaf as KVM answers a guest's vCPU, or null where the host has none: then all registers read zero.
 * @param xcr0 what leaf 0xD's EBX hangs on
 */
export const cpuidLeaf = (leaf: number, subleaf: number, apicId: number, xcr0: number): CpuidRegisters | null => {
  switch (leaf >>> 0) {
    case 0x0000_0001:
      // EBX: APIC ID, one logical processor, CLFLUSH of 64 bytes; ECX: x2APIC, hypervisor; EDX: TSC, MSR, APIC, SSE2.
      return [SIGNATURE, (((apicId & 0xff) << 24) | 0x0001_0800) >>> 0, 0x8020_0000, 0x0600_0230]
    case 0x0000_000d:
      if (subleaf !== 0) return null
      return [7, (xcr0 & XCR0_AVX) === 0 ? XSAVE_LEGACY : XSAVE_AVX, XSAVE_AVX, 0]
    default: {
      const found = LEAVES.get(leaf >>> 0)
      return found !== undefined && subleaf === 0 ? found : null
    }
  }
}

/** One register (0 EAX, 1 EBX, 2 ECX, 3 EDX) of a leaf, subleaf 0, as the MSR protocol asks for it. */
export const cpuidRegister = (leaf: number, register: number, apicId: number): number =>
  cpuidLeaf(leaf, 0, apicId, XCR0_RESET)?.[register] ?? 0

/** XCR0 after reset: x87 alone. The MSR protocol has no room to say another. */
const XCR0_RESET = 1

/** What a CPUID page is to hold: the leaves that this host has, APIC IDs as of vCPU 0. */
export const CPUID_PAGE_FUNCTIONS: ReadonlyArray<readonly [leaf: number, subleaf: number, xcr0: number]> = [
  [0x8000_001f, 0, 0],
  [0x0000_0000, 0, 0],
  [0x0000_0001, 0, 0],
  [0x0000_000d, 0, 1],
  [0x8000_0000, 0, 0]
]
