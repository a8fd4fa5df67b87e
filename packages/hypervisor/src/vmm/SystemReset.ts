import type { Vmm } from "./Vmm.ts"

/**
 * A reset of the whole machine (qemu_system_reset). Once registers are encrypted nobody can put them back to their
 * reset values, so the VMM says so and ends, unless it was told that a reboot is to end the machine anyway.
 * @returns true when the machine goes on from its reset vector
 */
export const systemReset = (vmm: Vmm, { rebootDisabled }: { readonly rebootDisabled: boolean }): boolean => {
  if (!vmm.owner.isStateProtected) return true
  vmm.fail(
    rebootDisabled
      ? "the guest asked for a reset, and reboot is disabled: the machine ends"
      : "the vCPUs' state is encrypted: a system reset is not possible, the machine must be launched anew"
  )
  return false
}
