// @section 3.6, 4.1
import {
  EFER_SVME,
  EXIT,
  getU64,
  INT_CTL,
  NESTED_CTL,
  PAGE_SIZE,
  SEV_FEATURES,
  TLB_CONTROL,
  VINTR_CTRL_BUSY_HI,
  VMCB,
  VMSA
} from "@vmpl-lab/sev-es"
import { COUNTER, PRIMITIVE } from "@vmpl-lab/sim"
import { loadControl } from "./Control.ts"
import { Execution } from "./Execution.ts"
import { saveControl } from "./Exit.ts"
import { offsetInPage } from "./GuestAccess.ts"
import { saveHostState } from "./HostState.ts"
import { isReservedAddress } from "./Instruction.ts"
import { isSealed } from "./Integrity.ts"
import { HOST_ASID } from "./PhysicalMemory.ts"
import { linearRip, type Processor } from "./Processor.ts"
import { unprotectRegisters } from "./RegisterProtection.ts"
import { resumes } from "./Resume.ts"
import { loadTranslation } from "./Translation.ts"
import { EVENT_VALID, loadEvents } from "./VirtualInterrupt.ts"
import { type VmrunState, vmrunCause } from "./VmrunChecks.ts"

/** Bit 63 of ALLOWED_SEV_FEATURES, in its upper half. */
const FEATURES_CHECKED = 0x8000_0000

/** VMRUN itself faults in the host: #GP(0), because the VMCB is no page or not hypervisor-owned. */
export const VMRUN_GP = "#GP"

/** Outcome of VMRUN: the guest runs, an exit code (VMEXIT_INVALID, VMEXIT_BUSY), or a fault in the host. */
export type VmrunOutcome = "entered" | number | typeof VMRUN_GP

/**
 * VMRUN: checks the pages it uses and what VMCB and VMSA ask for, then loads the VMSA named by the VMCB.
 * @param vmcb system physical address of the VMCB
 * @spec APM2 15.36.10 table 15-41, 15.36.12
 * @spec-silent the order of the checks beyond "host faults first"
 */
export const vmrun = (cpu: Processor, vmcb: number): VmrunOutcome => {
  const { rmp, memory } = cpu.hardware
  cpu.thread.charge(PRIMITIVE.vmrun_sev_snp)
  if (isReservedAddress(cpu, vmcb) || !rmp.checkHypervisorOwned(vmcb / PAGE_SIZE) || !hasSaveArea(cpu)) return VMRUN_GP
  const control = memory.read(vmcb / PAGE_SIZE, HOST_ASID)
  cpu.vmcb = vmcb
  cpu.asid = control.getUint32(VMCB.asid, true)
  cpu.ghcbLo = control.getUint32(VMCB.ghcb_gpa, true)
  cpu.ghcbHi = control.getUint32(VMCB.ghcb_gpa + 4, true)
  const vmsa = getU64(control, VMCB.vmsa_pa)
  const npt = cpu.hardware.nestedTables.get(getU64(control, VMCB.nested_cr3))
  const nestedCtl = control.getUint32(VMCB.nested_ctl, true)
  if ((nestedCtl & NESTED_CTL.NP_ENABLE) === 0 || npt === undefined || cpu.asid === 0 || offsetInPage(vmsa) !== 0)
    return refuse(cpu, EXIT.INVALID)

  const vmsaPfn = vmsa / PAGE_SIZE
  const view = memory.read(vmsaPfn, cpu.asid)
  const features = view.getUint32(VMSA.sev_features, true)
  const isSnp = isSnpPage(cpu, vmsaPfn)
  // A guest-owned page is the VMSA of an SNP guest, whatever its bytes say.
  if (isSnp ? (features & SEV_FEATURES.SNPActive) === 0 : !isHostPage(cpu, vmsaPfn, features))
    return refuse(cpu, EXIT.INVALID)
  if (rmp.isInUse(vmsaPfn)) return refuse(cpu, EXIT.BUSY)
  if (!isSnp && !isSealed(cpu.hardware, vmsaPfn, cpu.asid)) return refuse(cpu, EXIT.SHUTDOWN)
  if (!isOrdinary(cpu, control, view, features) && vmrunCause(stateOf(cpu, control, view, features)) !== null)
    return refuse(cpu, EXIT.INVALID)
  if (isSnp && view.getUint8(VMSA.vmpl) >= rmp.vmpls)
    return rmp.switches.U9 === "default" ? refuse(cpu, EXIT.INVALID) : VMRUN_GP
  const avic = avicFrame(control)
  if (avic !== null && !rmp.checkHypervisorOwned(avic)) return refuse(cpu, EXIT.INVALID)
  if ((view.getUint32(VMSA.vintr_ctrl + 4, true) & VINTR_CTRL_BUSY_HI) !== 0) return refuse(cpu, EXIT.BUSY)

  rmp.markInUse(vmcb / PAGE_SIZE)
  rmp.markInUse(vmsaPfn)
  cpu.avicPfn = avic ?? -1
  if (avic !== null) rmp.markInUse(avic)
  cpu.vmsaPfn = vmsaPfn
  cpu.npt = npt
  cpu.isSnp = isSnp
  if (cpu.hardware.hostMsrs !== undefined) saveHostState(cpu)
  memory.readHead(vmsaPfn, cpu.asid, cpu.registers)
  if ((features & SEV_FEATURES.VmsaRegProt) !== 0) unprotectRegisters(cpu)
  cpu.vmpl = isSnp ? cpu.registers[VMSA.vmpl]! : 0
  const tlbControl = control.getUint8(VMCB.tlb_ctl)
  if (tlbControl !== TLB_CONTROL.DO_NOTHING) {
    cpu.thread.charge(PRIMITIVE.tlb_flush_asid)
    cpu.thread.count(COUNTER.TLB_FLUSHES)
  }
  loadTranslation(cpu, tlbControl)
  loadControl(cpu, control)
  loadEvents(cpu, control)
  cpu.halted = false
  cpu.execution = executionOf(cpu)
  cpu.thread.note("VMRUN", cpu.vmpl)
  return "entered"
}

/** The host's save area must have been set, and still be the host's. */
const hasSaveArea = ({ hardware: { rmp, hostMsrs } }: Processor): boolean =>
  hostMsrs === undefined ||
  (hostMsrs.vmHsavePa !== 0 && rmp.checkHypervisorOwned(Math.floor(hostMsrs.vmHsavePa / PAGE_SIZE)))

/**
 * VMRUN is given a system address only: the reverse map is compared with the entry's own GPA.
 * @spec-silent what hardware compares
 */
const isSnpPage = ({ asid, hardware: { rmp } }: Processor, pfn: number): boolean =>
  rmp.checkVmrunVmsa(asid, rmp.gfnAt(pfn), pfn)

/** A VMSA without SNPActive must be hypervisor-owned. */
const isHostPage = ({ hardware: { rmp } }: Processor, pfn: number, features: number): boolean =>
  (features & SEV_FEATURES.SNPActive) === 0 && rmp.checkHypervisorOwned(pfn)

const SEV_ES = NESTED_CTL.SEV_ENABLE | NESTED_CTL.SEV_ES_ENABLE

/** A plain SNP guest and nothing to inject: no cause can apply, and most entries are such. */
const isOrdinary = ({ hardware: { hostMsrs } }: Processor, control: DataView, view: DataView, features: number) =>
  features === SEV_FEATURES.SNPActive &&
  (control.getUint32(VMCB.nested_ctl, true) & SEV_ES) === SEV_ES &&
  (view.getUint32(VMSA.efer, true) & EFER_SVME) !== 0 &&
  control.getUint32(VMCB.event_inj, true) < EVENT_VALID &&
  control.getUint32(VMCB.allowed_sev_features + 4, true) < FEATURES_CHECKED &&
  (hostMsrs?.snpEnabled ?? true)

const stateOf = (cpu: Processor, control: DataView, view: DataView, features: number): VmrunState => {
  const { hostMsrs } = cpu.hardware
  const nestedCtl = control.getUint32(VMCB.nested_ctl, true)
  const checksFeatures = control.getUint32(VMCB.allowed_sev_features + 4, true) >= FEATURES_CHECKED
  return {
    snpEnabled: hostMsrs?.snpEnabled ?? true,
    sev: (nestedCtl & NESTED_CTL.SEV_ENABLE) !== 0,
    sevEs: (nestedCtl & NESTED_CTL.SEV_ES_ENABLE) !== 0,
    avic: hasAvic(control),
    shadowStackCheck: (nestedCtl & NESTED_CTL.SSS_CHECK_ENABLE) !== 0,
    eventInjection: control.getUint32(VMCB.event_inj, true),
    allowedFeatures: checksFeatures ? control.getUint32(VMCB.allowed_sev_features, true) : null,
    ibsEnabled: hostMsrs?.ibsEnabled ?? false,
    features,
    efer: view.getUint32(VMSA.efer, true)
  }
}

const hasAvic = (control: DataView): boolean => (control.getUint32(VMCB.int_ctl, true) & INT_CTL.AVIC_ENABLE) !== 0

/** Frame of the AVIC backing page, null without AVIC. */
const avicFrame = (control: DataView): number | null =>
  hasAvic(control) ? Math.floor(getU64(control, VMCB.avic_backing_page) / PAGE_SIZE) : null

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

const refuse = (cpu: Processor, code: number): number => {
  saveControl(cpu, code, 0, 0, 0)
  return code
}
