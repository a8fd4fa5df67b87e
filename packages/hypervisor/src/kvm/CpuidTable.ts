import { HV_FEATURE } from "@vmpl-lab/sev-es"

/** Position of the C-bit on EPYC. */
export const CBIT_POSITION = 51

/** GHCB hypervisor features that this KVM offers: SNP, AP creation, multi-VMPL. */
export const HV_FEATURES = HV_FEATURE.SNP | HV_FEATURE.AP_CREATION | HV_FEATURE.MULTI_VMPL

/** Host CPUID as KVM passes it on: EAX, EBX, ECX, EDX by leaf. Leaves that are not here read as zero. */
const LEAVES: ReadonlyMap<number, readonly [number, number, number, number]> = new Map([
  [0x0000_0000, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]],
  // SEV, SEV-ES, SNP, VMPL, RMPQUERY and what an EPYC 9005 reports beside; 4 VMPLs, C-bit 51, 1006 guests. EDX is set by
  // the platform's owner: here ASIDs 1 to 99 are for SEV-ES and SNP.
  [0x8000_001f, [0xcfff_fffb, 0x0000_41b3, 1006, 100]]
])

/** One register (0 EAX, 1 EBX, 2 ECX, 3 EDX) of a leaf, subleaf 0. */
export const cpuidRegister = (leaf: number, register: number): number => LEAVES.get(leaf >>> 0)?.[register] ?? 0
