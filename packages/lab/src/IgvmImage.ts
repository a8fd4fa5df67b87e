import { LAUNCH_POLICY, type LaunchPage, measureSnp, writeIgvm } from "@vmpl-lab/hypervisor"
import { type IdBlockInput, PAGE_TYPE, signIdBlock } from "@vmpl-lab/psp"
import { INITIAL_VMSA_GPA, PAGE_SIZE, setU64, VMSA } from "@vmpl-lab/sev-es"
import { IMAGE, PARAMETERS_VP_COUNT } from "@vmpl-lab/svsm"
import type { SvsmLaunch } from "./SvsmLaunch.ts"

/** What an owner puts into an ID block, and with which keys. */
export type IgvmOwner = Pick<IdBlockInput, "familyId" | "imageId" | "svn" | "idKey" | "authorKey">

export interface IgvmImage {
  readonly bytes: Uint8Array
  /** What `measure --igvm` says of it, 48 bytes. */
  readonly digest: Uint8Array
}

/** Protected mode with the caches as after a reset: what KVM makes of CR0 when it starts such a VMSA. */
const KVM_CR0 = 0x31

/**
 * An IGVM file with firmware and SVSM of a launch. The number of vCPUs is left to the VMM, in the SVSM's parameter area:
 * the file serves as many as there is room for. ZERO pages become pages of zeros, which have another digest.
 * Throws FirmwareError where a page has no form in an IGVM file.
 */
export const igvmImage = (
  name: string,
  { plan, parameters, memorySlots }: SvsmLaunch,
  policy: bigint = LAUNCH_POLICY,
  owner?: IgvmOwner
): IgvmImage => {
  const parametersGpa = parameters.svsm.gpa + IMAGE.PARAMETERS
  const pages = plan.map((page): LaunchPage => {
    const { gpa, type } = page
    if (type === PAGE_TYPE.ZERO) return { gpa, type: PAGE_TYPE.NORMAL, contents: new Uint8Array(PAGE_SIZE) }
    if (page.contents === null || (gpa !== parametersGpa && gpa !== INITIAL_VMSA_GPA)) return page
    const contents = page.contents.slice()
    const view = new DataView(contents.buffer)
    if (gpa === parametersGpa) view.setUint32(PARAMETERS_VP_COUNT, 0, true)
    else setU64(view, VMSA.cr0, KVM_CR0)
    return { gpa, type, contents }
  })
  const digest = measureSnp(pages)
  const authKeyEn = owner?.authorKey !== undefined
  const idBlock = owner === undefined ? undefined : { ...signIdBlock({ ...owner, digest, policy }), authKeyEn }
  const bytes = writeIgvm(name, {
    policy,
    pages,
    parameters: new Map([[parametersGpa, [{ name: "VP_COUNT", offset: PARAMETERS_VP_COUNT }]]]),
    required: memorySlots
      .filter(({ gfn }) => gfn < 0x10_0000)
      .map(({ gfn, pages }) => ({ gpa: gfn * PAGE_SIZE, size: pages * PAGE_SIZE })),
    idBlock
  })
  return { bytes, digest }
}
