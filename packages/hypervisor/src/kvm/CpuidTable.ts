// @section 4.4
import { NUM_VMPLS } from "@vmpl-lab/rmp"
import {
  type CpuidRegisters,
  encodeSevCapabilities,
  HV_FEATURE,
  SEV_CAPABILITY_BITS,
  type SevCapability
} from "@vmpl-lab/sev-es"

/** Position of the C-bit on EPYC. */
export const CBIT_POSITION = 51

/** GHCB hypervisor features that this KVM offers: SNP, AP creation, multi-VMPL. */
export const HV_FEATURES = HV_FEATURE.SNP | HV_FEATURE.AP_CREATION | HV_FEATURE.MULTI_VMPL

/** What the default machine's processor cannot do of what AMD has defined. */
const MISSING: ReadonlySet<SevCapability> = new Set(["PageFlushMsr", "SvsmCommPageMsr", "NestedVirtSnpMsr"])

/** An EPYC 9005 with 1006 encrypted guests; ASIDs 1 to 99 are for SEV-ES and SNP, as the platform's owner has set it. */
const SEV_CAPABILITIES = encodeSevCapabilities({
  has: new Set(SEV_CAPABILITY_BITS.filter((name) => !MISSING.has(name))),
  cbitPosition: CBIT_POSITION,
  physicalAddressReduction: 6,
  numVmpls: NUM_VMPLS,
  coherencySfwNo: false,
  guests: 1006,
  minSevNoEsAsid: 100
})

/** Host CPUID as KVM passes it on: EAX, EBX, ECX, EDX by leaf. Leaves that are not here read as zero. */
const LEAVES: ReadonlyMap<number, CpuidRegisters> = new Map<number, CpuidRegisters>([
  [0x0000_0000, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]],
  [0x8000_001f, SEV_CAPABILITIES]
])

/** One register (0 EAX, 1 EBX, 2 ECX, 3 EDX) of a leaf, subleaf 0. */
export const cpuidRegister = (leaf: number, register: number): number => LEAVES.get(leaf >>> 0)?.[register] ?? 0
