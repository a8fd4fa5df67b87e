import { ACCESS } from "@vmpl-lab/rmp"
import { VMSA } from "@vmpl-lab/sev-es"
import { KIND_MASK, SHADOW_STACK_STORE } from "./NestedAccess.ts"
import { MAPPING } from "./PageWalkResult.ts"
import type { Processor } from "./Processor.ts"
import { STEP } from "./Step.ts"
import { CR0, CR4, EFER, RFLAGS_AC } from "./Translation.ts"

/** Error code of a guest's #PF. @spec APM2 8.4.2 */
export const PF = { P: 1, W: 2, U: 4, RSVD: 8, ID: 0x10, SS: 0x40 } as const

const isStore = (kind: number): boolean => kind === ACCESS.WRITE || kind === SHADOW_STACK_STORE

/** Fails an access with #PF: sets `cpu.failure` and the error code. `why` is P, with RSVD or alone, or 0. */
export const pageFault = (cpu: Processor, kind: number, why: number): void => {
  const { view } = cpu
  const tellsFetch =
    (view.getUint32(VMSA.efer, true) & EFER.NXE) !== 0 || (view.getUint32(VMSA.cr4, true) & CR4.SMEP) !== 0
  cpu.failure = STEP.PF
  cpu.pageFaultCode =
    why |
    (isStore(kind) ? PF.W : 0) |
    (cpu.registers[VMSA.cpl] === 3 ? PF.U : 0) |
    (kind === ACCESS.FETCH && tellsFetch ? PF.ID : 0) |
    ((kind & KIND_MASK) === ACCESS.SHADOW_STACK ? PF.SS : 0)
}

/**
 * Whether a mapping's own rights, bits of MAPPING, allow an access: present is known. Shadow-stack accesses are those
 * of the supervisor.
 * @spec APM2 5.6
 */
export const isMappingPermitted = (cpu: Processor, kind: number, mapping: number): boolean => {
  const { view } = cpu
  const user = cpu.registers[VMSA.cpl] === 3
  const userPage = (mapping & MAPPING.USER) !== 0
  if (user && !userPage) return false
  if ((kind & KIND_MASK) === ACCESS.SHADOW_STACK) return !userPage && (mapping & MAPPING.SHADOW_STACK) !== 0
  const cr4 = view.getUint32(VMSA.cr4, true)
  if (kind === ACCESS.FETCH)
    return (mapping & MAPPING.NO_EXECUTE) === 0 && (user || !userPage || (cr4 & CR4.SMEP) === 0)
  if (!user && userPage && (cr4 & CR4.SMAP) !== 0 && (view.getUint32(VMSA.rflags, true) & RFLAGS_AC) === 0) return false
  if (kind !== ACCESS.WRITE || (mapping & MAPPING.WRITABLE) !== 0) return true
  return !user && (view.getUint32(VMSA.cr0, true) & CR0.WP) === 0
}
