// @ghcb msr 0x000
import { VMCB } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import type { Vcpu } from "./Vcpu.ts"
import { handleVmgexitMsr } from "./VmgexitMsr.ts"
import { handleVmgexitPage } from "./VmgexitPage.ts"

/** VMGEXIT: the low 12 bits of the GHCB MSR tell the MSR protocol (not zero) from the page protocol. @spec GHCB "GHCB layout" */
export const handleVmgexit = (vcpu: Vcpu, thread: HostThread): number => {
  const { host } = vcpu.vm.kvm.hardware
  const lo = host.read32(vcpu.vmcb + VMCB.ghcb_gpa)
  const hi = host.read32(vcpu.vmcb + VMCB.ghcb_gpa + 4)
  return (lo & 0xfff) !== 0 ? handleVmgexitMsr(vcpu, thread, lo, hi) : handleVmgexitPage(vcpu, thread, lo, hi)
}
