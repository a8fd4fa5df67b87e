import { EFER_SVME, PAGE_SIZE, SEGMENT, setU64, VMSA } from "@vmpl-lab/sev-es"

/** Virtual machine monitors whose initial register state is known. */
export type VmmType = "QEMU" | "ec2" | "gce"

export const VMM_TYPES: ReadonlyArray<VmmType> = ["QEMU", "ec2", "gce"]

/** Where the boot processor starts: the reset vector. */
export const RESET_EIP = 0xffff_fff0

export interface InitialVmsa {
  readonly vmmType: VmmType
  /** First instruction: the reset vector for the BSP, the firmware's AP entry for the others. */
  readonly eip: number
  /** CPUID signature; only QEMU puts it into RDX, as a processor does at reset. */
  readonly signature: number
  /** SEV_FEATURES, exact below 2^53; 0 for SEV-ES. */
  readonly sevFeatures: number
  readonly bsp: boolean
}

/** What the monitors do differently. Attributes are in the compressed form of the VMCB. */
interface VmmState {
  readonly csAttributes: number
  readonly ssAttributes: number
  readonly trAttributes: number
  readonly rdx: number
  /** Page attribute table, lower and upper half. */
  readonly patLo: number
  readonly patHi: number
  readonly mxcsr: number
  readonly fcw: number
}

const PAT_RESET = { patLo: 0x0007_0406, patHi: 0x0007_0406 }

const stateOf = ({ vmmType, signature, bsp }: InitialVmsa): VmmState => {
  switch (vmmType) {
    case "QEMU":
      return {
        csAttributes: 0x9b,
        ssAttributes: 0x93,
        trAttributes: 0x8b,
        rdx: signature,
        ...PAT_RESET,
        mxcsr: 0x1f80,
        fcw: 0x37f
      }
    case "ec2":
      return {
        csAttributes: bsp ? 0x9a : 0x9b,
        ssAttributes: 0x92,
        trAttributes: 0x83,
        rdx: 0x600,
        ...PAT_RESET,
        mxcsr: 0,
        fcw: 0
      }
    case "gce":
      return {
        csAttributes: 0x9b,
        ssAttributes: 0x93,
        trAttributes: 0x8b,
        rdx: 0x600,
        patLo: 0x0007_0106,
        patHi: 0,
        mxcsr: 0,
        fcw: 0
      }
  }
}

/**
 * The VMSA, 4096 bytes, with which a vCPU starts: reset state of the processor, CS:RIP split as the VMMs do, and EFER
 * and CR4 as KVM sets them. The EC2 and GCE rows come from measuring tools, not from those VMMs.
 * @spec APM2 14.1.3 "processor initialization state", appendix B table B-4
 */
export const initialVmsa = (vcpu: InitialVmsa): Uint8Array => {
  const page = new Uint8Array(PAGE_SIZE)
  const view = new DataView(page.buffer)
  const state = stateOf(vcpu)
  const segment = (offset: number, selector: number, attributes: number, base: number): void => {
    view.setUint16(offset + SEGMENT.selector, selector, true)
    view.setUint16(offset + SEGMENT.attributes, attributes, true)
    view.setUint32(offset + SEGMENT.limit, 0xffff, true)
    setU64(view, offset + SEGMENT.base, base)
  }
  for (const data of [VMSA.es, VMSA.ds, VMSA.fs, VMSA.gs]) segment(data, 0, 0x93, 0)
  segment(VMSA.cs, 0xf000, state.csAttributes, (vcpu.eip & 0xffff_0000) >>> 0)
  segment(VMSA.ss, 0, state.ssAttributes, 0)
  segment(VMSA.gdtr, 0, 0, 0)
  segment(VMSA.idtr, 0, 0, 0)
  segment(VMSA.ldtr, 0, 0x82, 0)
  segment(VMSA.tr, 0, state.trAttributes, 0)
  setU64(view, VMSA.efer, EFER_SVME)
  setU64(view, VMSA.cr4, 0x40)
  setU64(view, VMSA.cr0, 0x10)
  setU64(view, VMSA.dr7, 0x400)
  setU64(view, VMSA.dr6, 0xffff_0ff0)
  setU64(view, VMSA.rflags, 0x2)
  setU64(view, VMSA.rip, vcpu.eip & 0xffff)
  view.setUint32(VMSA.g_pat, state.patLo, true)
  view.setUint32(VMSA.g_pat + 4, state.patHi, true)
  setU64(view, VMSA.rdx, state.rdx)
  setU64(view, VMSA.sev_features, vcpu.sevFeatures)
  setU64(view, VMSA.xcr0, 1)
  view.setUint32(VMSA.mxcsr, state.mxcsr, true)
  view.setUint16(VMSA.x87_fcw, state.fcw, true)
  return page
}
