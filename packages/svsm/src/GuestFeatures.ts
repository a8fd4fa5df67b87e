import { SEV_FEATURES } from "@vmpl-lab/sev-es"

/**
 * SEV_FEATURES with which the guest's level can be served. Missing are those that would have the SVSM do what it does
 * not: hand on #VC, read a VMSA whose registers are mixed up, place shared pages above a vTOM, stand in for a secure
 * AVIC, and what is not defined.
 */
const SERVED =
  SEV_FEATURES.SNPActive |
  SEV_FEATURES.RestrictedInjection |
  SEV_FEATURES.AlternateInjection |
  SEV_FEATURES.DebugVirtualization |
  SEV_FEATURES.PreventHostIBS |
  SEV_FEATURES.BTBIsolation |
  SEV_FEATURES.VmplSSS |
  SEV_FEATURES.SecureTSC |
  SEV_FEATURES.PmcVirtualization |
  SEV_FEATURES.IbsVirtualization |
  SEV_FEATURES.SmtProtection |
  SEV_FEATURES.IbpbOnEntry

/**
 * Whether the guest's start-up vCPU may have these SEV_FEATURES; an SVSM may refuse what it cannot serve. Alternate
 * injection needs interrupts that reach the SVSM by its doorbell.
 * @param own SEV_FEATURES of the SVSM's level
 * @spec SVSM 4.1
 */
export const canServe = (features: number, own: number): boolean => {
  if ((features & SEV_FEATURES.SNPActive) === 0 || (features & ~SERVED) !== 0) return false
  return (features & SEV_FEATURES.AlternateInjection) === 0 || (own & SEV_FEATURES.RestrictedInjection) !== 0
}
