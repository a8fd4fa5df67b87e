import { EFER_SVME, PAGE_SIZE, SEGMENT, setU64, VMSA } from "@vmpl-lab/sev-es"

/** What differs from one AP to the next. */
export interface ApVmsaOptions {
  readonly vmpl: number
  readonly sevFeatures: number
  /** Base of the code segment; its selector is the base in paragraphs, as a SIPI sets it. */
  readonly codeBase: number
  readonly rip: number
  /** Put into RDI: the program's only argument. */
  readonly argument: number
}

const segment = (view: DataView, offset: number, selector: number, attributes: number, base: number): void => {
  view.setUint16(offset + SEGMENT.selector, selector, true)
  view.setUint16(offset + SEGMENT.attributes, attributes, true)
  view.setUint32(offset + SEGMENT.limit, 0xffff, true)
  setU64(view, offset + SEGMENT.base, base)
}

/**
 * A VMSA in the state in which firmware and Linux start an AP: real mode at a SIPI-like entry.
 * @spec APM2 14.1.3 (reset values); EFER.SVME as SNP demands
 */
export const apVmsa = ({ vmpl, sevFeatures, codeBase, rip, argument }: ApVmsaOptions): Uint8Array => {
  const bytes = new Uint8Array(PAGE_SIZE)
  const view = new DataView(bytes.buffer)
  for (const offset of [VMSA.es, VMSA.ss, VMSA.ds, VMSA.fs, VMSA.gs]) segment(view, offset, 0, 0x93, 0)
  segment(view, VMSA.cs, (codeBase >>> 4) & 0xffff, 0x9b, codeBase)
  segment(view, VMSA.gdtr, 0, 0, 0)
  segment(view, VMSA.idtr, 0, 0, 0)
  segment(view, VMSA.ldtr, 0, 0x82, 0)
  segment(view, VMSA.tr, 0, 0x83, 0)
  view.setUint8(VMSA.vmpl, vmpl)
  setU64(view, VMSA.efer, EFER_SVME)
  setU64(view, VMSA.cr0, 0x10)
  setU64(view, VMSA.dr7, 0x400)
  setU64(view, VMSA.dr6, 0xffff_0ff0)
  setU64(view, VMSA.rflags, 2)
  setU64(view, VMSA.rip, rip)
  view.setUint32(VMSA.g_pat, 0x0007_0406, true)
  view.setUint32(VMSA.g_pat + 4, 0x0007_0406, true)
  setU64(view, VMSA.rdi, argument)
  setU64(view, VMSA.sev_features, sevFeatures)
  setU64(view, VMSA.xcr0, 1)
  view.setUint32(VMSA.mxcsr, 0x1f80, true)
  view.setUint16(VMSA.x87_ftw, 0x5555, true)
  view.setUint16(VMSA.x87_fcw, 0x40, true)
  return bytes
}
