/** A processor as CPUID Fn1 EAX names it. Families above 15 use the extended field. @spec APM3 CPUID Fn0000_0001 EAX */
export const cpuSignature = (family: number, model: number, stepping: number): number => {
  const baseFamily = Math.min(family, 0xf)
  const extendedFamily = (family - baseFamily) & 0xff
  const extendedModel = (model >> 4) & 0xf
  return (extendedFamily << 20) | (extendedModel << 16) | (baseFamily << 8) | ((model & 0xf) << 4) | (stepping & 0xf)
}

const NAPLES = cpuSignature(23, 1, 2)
const ROME = cpuSignature(23, 49, 0)
const MILAN = cpuSignature(25, 1, 1)
const GENOA = cpuSignature(25, 17, 0)
const TURIN = cpuSignature(26, 0, 0)

/**
 * CPU models of QEMU with their signatures; the names are those that sev-snp-measure takes. EPYC-v1 to -v4 differ in
 * features, not in signature, hence not in measurement.
 */
export const VCPU_SIGNATURE = {
  EPYC: NAPLES,
  "EPYC-v1": NAPLES,
  "EPYC-v2": NAPLES,
  "EPYC-IBPB": NAPLES,
  "EPYC-v3": NAPLES,
  "EPYC-v4": NAPLES,
  "EPYC-Rome": ROME,
  "EPYC-Rome-v1": ROME,
  "EPYC-Rome-v2": ROME,
  "EPYC-Rome-v3": ROME,
  "EPYC-Milan": MILAN,
  "EPYC-Milan-v1": MILAN,
  "EPYC-Milan-v2": MILAN,
  "EPYC-Genoa": GENOA,
  "EPYC-Genoa-v1": GENOA,
  "EPYC-Turin": TURIN
} as const

export type VcpuType = keyof typeof VCPU_SIGNATURE

/** The names, for help texts and option parsers. */
export const VCPU_TYPES = Object.keys(VCPU_SIGNATURE) as ReadonlyArray<VcpuType>
