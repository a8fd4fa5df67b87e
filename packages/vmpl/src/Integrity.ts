import { createHash } from "node:crypto"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { Hardware } from "./Processor.ts"

/**
 * The integrity value that the CPU keeps of a VMSA of an SEV-ES guest without SNP: where it does, and how it is
 * calculated, AMD does not say. Only that a VMSA which somebody else has changed cannot be entered.
 * @spec APM2 15.35.3
 */
const integrityOf = ({ memory }: Hardware, pfn: number, asid: number): string => {
  const view = memory.read(pfn, asid)
  return createHash("sha256")
    .update(new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE))
    .digest("hex")
}

/** #VMEXIT and LAUNCH_UPDATE_VMSA: the page as it is now is the one that VMRUN takes. */
export const sealVmsa = (hardware: Hardware, pfn: number, asid: number): void => {
  hardware.vmsaIntegrity?.set(pfn, integrityOf(hardware, pfn, asid))
}

/** Whether nobody has changed a VMSA since it was sealed. Without `vmsaIntegrity` the machine does not look. */
export const isSealed = (hardware: Hardware, pfn: number, asid: number): boolean =>
  hardware.vmsaIntegrity === undefined || hardware.vmsaIntegrity.get(pfn) === integrityOf(hardware, pfn, asid)
