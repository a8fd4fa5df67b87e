import { NUM_VMPLS } from "@vmpl-lab/rmp"
import {
  EFER_SVME,
  EXIT,
  NESTED_CTL,
  PAGE_SIZE,
  SEV_FEATURES,
  TLB_CONTROL,
  VINTR_CTRL_BUSY_HI,
  VMCB,
  VMSA,
  VMSA_STATE_SIZE
} from "@vmpl-lab/sev-es"
import { COUNTER, PRIMITIVE } from "@vmpl-lab/sim"
import { Execution } from "./Execution.ts"
import { saveControl } from "./Exit.ts"
import { linearRip, type Processor } from "./Processor.ts"
import { resumes } from "./Resume.ts"
import { loadTranslation } from "./Translation.ts"

/** VMRUN itself faults in the host: #GP(0), because the VMCB is no page or not hypervisor-owned. */
export const VMRUN_GP = "#GP"

/** Outcome of VMRUN: the guest runs, an exit code (VMEXIT_INVALID, VMEXIT_BUSY), or a fault in the host. */
export type VmrunOutcome = "entered" | number | typeof VMRUN_GP

/**
 * VMRUN of an SNP-active guest: checks the VMCB and VMSA pages, then loads the VMSA named by the VMCB.
 * @param vmcb system physical address of the VMCB
 * @spec APM2 15.36.10 table 15-41, 15.36.12
 */
export const vmrun = (cpu: Processor, vmcb: number): VmrunOutcome => {
  const { rmp, host, memory } = cpu.hardware
  cpu.thread.charge(PRIMITIVE.vmrun_sev_snp)
  if (vmcb % PAGE_SIZE !== 0 || !rmp.checkHypervisorOwned(vmcb / PAGE_SIZE)) return VMRUN_GP
  cpu.vmcb = vmcb
  cpu.asid = host.read32(vmcb + VMCB.asid)
  cpu.ghcbLo = host.read32(vmcb + VMCB.ghcb_gpa)
  cpu.ghcbHi = host.read32(vmcb + VMCB.ghcb_gpa + 4)
  const vmsa = host.read64(vmcb + VMCB.vmsa_pa)
  const vmsaPfn = vmsa / PAGE_SIZE
  const control = NESTED_CTL.NP_ENABLE | NESTED_CTL.SEV_ENABLE | NESTED_CTL.SEV_ES_ENABLE
  const npt = cpu.hardware.nestedTables.get(host.read64(vmcb + VMCB.nested_cr3))
  if (
    (host.read32(vmcb + VMCB.nested_ctl) & control) !== control ||
    npt === undefined ||
    cpu.asid === 0 ||
    vmsa % PAGE_SIZE !== 0 ||
    // VMRUN is given a system address only: the reverse map is checked against the entry's own GPA. @spec-silent
    !rmp.checkVmrunVmsa(cpu.asid, rmp.entry(vmsaPfn).gfn, vmsaPfn)
  ) {
    return refuse(cpu, EXIT.INVALID)
  }
  if (rmp.isInUse(vmsaPfn)) return refuse(cpu, EXIT.BUSY)
  const view = memory.read(vmsaPfn, cpu.asid)
  const features = view.getUint32(VMSA.sev_features, true)
  if (
    (view.getUint32(VMSA.efer, true) & EFER_SVME) === 0 ||
    (features & SEV_FEATURES.SNPActive) === 0 ||
    (features & INJECTION_MODES) === INJECTION_MODES ||
    !allowed(cpu, features) ||
    // @spec-silent U9: a level that does not exist.
    view.getUint8(VMSA.vmpl) >= NUM_VMPLS
  ) {
    return refuse(cpu, EXIT.INVALID)
  }
  if ((view.getUint32(VMSA.vintr_ctrl + 4, true) & VINTR_CTRL_BUSY_HI) !== 0) return refuse(cpu, EXIT.BUSY)

  const tlbControl = host.read8(vmcb + VMCB.tlb_ctl)
  if (tlbControl !== TLB_CONTROL.DO_NOTHING) {
    cpu.thread.charge(PRIMITIVE.tlb_flush_asid)
    cpu.thread.count(COUNTER.TLB_FLUSHES)
  }
  rmp.markInUse(vmcb / PAGE_SIZE)
  rmp.markInUse(vmsaPfn)
  cpu.vmsaPfn = vmsaPfn
  cpu.npt = npt
  cpu.registers.set(new Uint8Array(view.buffer, view.byteOffset, VMSA_STATE_SIZE))
  cpu.vmpl = cpu.registers[VMSA.vmpl]!
  loadTranslation(cpu, tlbControl)
  cpu.execution = executionOf(cpu)
  cpu.thread.note("VMRUN", cpu.vmpl)
  return "entered"
}

/** Resumes what stopped at this VMSA, or starts the program that its CS:RIP points at; null when there is none. */
const executionOf = (cpu: Processor): Execution | null => {
  const { executions, programs } = cpu.hardware
  const rip = linearRip(cpu)
  const known = executions.get(cpu.vmsaPfn)
  if (known !== undefined && resumes(cpu, known, rip)) return known
  const entry = programs.at(rip)
  if (entry === undefined) return null
  const execution = new Execution(entry(), rip)
  executions.set(cpu.vmsaPfn, execution)
  return execution
}

/** Restricted and alternate injection exclude each other. @spec APM2 15.36.16 */
const INJECTION_MODES = SEV_FEATURES.RestrictedInjection | SEV_FEATURES.AlternateInjection

/** ALLOWED_SEV_FEATURES: with bit 63 set, a feature that is not listed refuses the entry. */
const allowed = ({ hardware: { host }, vmcb }: Processor, features: number): boolean => {
  const checked = (host.read32(vmcb + VMCB.allowed_sev_features + 4) & 0x8000_0000) !== 0
  return !checked || (features & ~host.read32(vmcb + VMCB.allowed_sev_features)) === 0
}

const refuse = (cpu: Processor, code: number): number => {
  saveControl(cpu, code, 0, 0, 0)
  return code
}
