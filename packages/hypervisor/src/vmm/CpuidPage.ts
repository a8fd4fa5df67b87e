import { CPUID_FUNCTION, CPUID_FUNCTION_BASE, CPUID_FUNCTION_SIZE, CPUID_PAGE, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { CPUID_PAGE_FUNCTIONS, cpuidLeaf } from "../kvm/CpuidTable.ts"

/**
 * The CPUID page that the VMM has launched: what KVM answers, for the firmware to check and the guest to believe. The
 * leaf with the C-bit's place comes first, since a loader looks for it before anything else.
 * @spec SNP-ABI "CPUID page"
 */
export const cpuidPage = (): Uint8Array => {
  const page = new Uint8Array(PAGE_SIZE)
  const view = new DataView(page.buffer)
  view.setUint32(CPUID_PAGE.count, CPUID_PAGE_FUNCTIONS.length, true)
  for (const [i, [leaf, subleaf, xcr0]] of CPUID_PAGE_FUNCTIONS.entries()) {
    const at = CPUID_FUNCTION_BASE + i * CPUID_FUNCTION_SIZE
    const [eax, ebx, ecx, edx] = cpuidLeaf(leaf, subleaf, 0, xcr0) ?? [0, 0, 0, 0]
    view.setUint32(at + CPUID_FUNCTION.eax_in, leaf, true)
    view.setUint32(at + CPUID_FUNCTION.ecx_in, subleaf, true)
    view.setUint32(at + CPUID_FUNCTION.xcr0_in, xcr0, true)
    for (const [name, value] of Object.entries({ eax, ebx, ecx, edx })) {
      view.setUint32(at + CPUID_FUNCTION[name as "eax" | "ebx" | "ecx" | "edx"], value, true)
    }
  }
  return page
}
