import {
  type ApCreateRequest,
  checkApCreation,
  createPlane,
  createPlaneVcpu,
  creates,
  ERRNO,
  EXIT_REASON,
  HANDLED,
  kick,
  kickFromInterrupt,
  PLANE_EVENT,
  requestUpdate,
  type Vcpu,
  type Vmm,
  type VmmVcpu,
  type VmplOperations
} from "@vmpl-lab/hypervisor"
import { NUM_VMPLS } from "@vmpl-lab/rmp"
import { AP_CREATION, EXIT, REASON } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { OTHER_VMCB, type StrategyDesign } from "./StrategyDesign.ts"

/** What both ways to run planes have in common. */
export const PLANES: Omit<StrategyDesign, "source" | "switchedIn" | "saved" | "wakes" | "unconfirmed"> = {
  status: "published",
  perLevel: "plane with its descriptor, vCPU object, VMCB, local APIC, event queue, SEV features",
  shared: "VM, plane 0's descriptor and kvm_run, CPUID, mutex, memory slots and attributes, nested page table",
  missingOnCreate: "exit CREATE_VCPU to the VMM, which creates plane and vCPU; the event is served anew",
  features: "all bits as in the plane's first VMSA, plane 0 as launched",
  tlb: OTHER_VMCB
}

/** What the two ways to run planes differ in. */
export interface PlaneSwitch {
  /** AP creation has started a plane. */
  readonly started: (target: Vcpu) => void
  /** Run VMPL: the target can run. @returns HANDLED */
  readonly switchTo: (vcpu: Vcpu, target: Vcpu) => number
  readonly enter: (descriptor: Vcpu) => Vcpu | number
  readonly beforeEntry: (vcpu: Vcpu) => number
  readonly wakeLevel: VmplOperations["wakeLevel"]
}

/** KVM_EXIT_PLANE_EVENT. */
export const planeEvent = ({ run }: Vcpu, cause: number, vmpl: number): number => {
  run.exitReason = EXIT_REASON.PLANE_EVENT
  run.cause = cause
  run.vmpl = vmpl
  return HANDLED.EXIT_TO_USER
}

/** The planes of a guest vCPU have one thread: the kick finds it whichever of them runs. */
export const kickPlanes = ({ common, vm }: Vcpu, by: HostThread | null): void => {
  if (by === null) kickFromInterrupt(common.current, vm.kvm.host.now, EXIT.INTR)
  else kick(common.current, by, null)
}

/** A plane has the features of the first VMSA that was named for it, plane 0 those of the launch: all bits must agree. */
const takesFeatures = (vm: Vcpu["vm"], { vmpl, sevFeatures }: ApCreateRequest): boolean => {
  const known = vmpl === 0 ? vm.launchFeatures : vm.vmsaFeatures[vmpl]!
  if (known < 0) vm.vmsaFeatures[vmpl] = sevFeatures
  return known < 0 || known === sevFeatures
}

/**
 * AP creation: a plane without a vCPU is user space's to create, and the event is served anew when it has. A request
 * that is refused leaves the plane as it was.
 */
const apCreate = ({ started }: PlaneSwitch, vcpu: Vcpu, thread: HostThread, request: ApCreateRequest): number => {
  const { vm } = vcpu
  if (request.vmpl >= NUM_VMPLS) return ERRNO.EINVAL
  const parent = vm.vcpus.get(request.apicId)
  if (parent === undefined || parent.current.vmpl !== 0) return ERRNO.EINVAL
  const target = parent.common.vcpuOf(request.vmpl)
  if (target === null) {
    vcpu.run.apicId = request.apicId
    return planeEvent(vcpu, PLANE_EVENT.CREATE_VCPU, request.vmpl)
  }
  if (checkApCreation(vm, request) < 0) return ERRNO.EINVAL
  const withVmsa = creates(request.request)
  if (withVmsa && !takesFeatures(vm, request)) return ERRNO.EINVAL
  const slot = target.current
  slot.vmsaGpa = withVmsa ? request.vmsaGpa : -1
  slot.waitingForReset = true
  if (withVmsa) slot.sevFeatures = request.sevFeatures
  target.apRunnable = request.request === AP_CREATION.CREATE
  const { mpState } = target
  const path = target.apRunnable ? thread.span : null
  requestUpdate(target, path)
  // Only CREATE makes it leave the wait for INIT.
  if (target.apRunnable) started(target)
  else target.mpState = mpState
  kick(target.common.current, thread, path)
  return HANDLED.RESUME_GUEST
}

/**
 * Run VMPL acts on the plane as INIT and SIPI would: what waits or has halted runs. One without a VMSA is switched to all
 * the same, and sleeps: the caller is not told.
 */
const runVmpl = ({ switchTo }: PlaneSwitch, vcpu: Vcpu, vmpl: number): number => {
  const target = vcpu.common.vcpuOf(vmpl)
  if (target === null) return ERRNO.EINVAL
  if (target === vcpu) return HANDLED.RESUME_GUEST
  const { vmsaPfn, waitingForReset } = target.current
  if (vmsaPfn >= 0 || waitingForReset) target.setRunnable()
  target.apRunnable = true
  return switchTo(vcpu, target)
}

/** KVM's half of planes. KVM_RUN is on plane 0's descriptor; a plane's own has no such ioctl. */
export const planeOperations = (how: PlaneSwitch): VmplOperations => ({
  apCreate: (vcpu, thread, request) => apCreate(how, vcpu, thread, request),
  runVmpl: (vcpu, _thread, vmpl) => runVmpl(how, vcpu, vmpl),
  runVmplReason: REASON.INVALID_INPUT,
  runVmplMsr: "KVM_RUN fails",
  wakeLevel: how.wakeLevel,
  enter: (descriptor) => (descriptor.current.vmpl === 0 ? how.enter(descriptor) : ERRNO.ENOTTY),
  beforeEntry: how.beforeEntry
})

/** The VMM's answer to CREATE_VCPU: the plane, if it is the first vCPU there, and its vCPU. @returns 0 or an errno */
export const createVcpuOfPlane = ({ owner }: Vmm, { vcpu, thread }: VmmVcpu): number => {
  const { apicId, vmpl } = vcpu.run
  const plane = owner.planes.get(vmpl) ?? createPlane(owner, thread, vmpl)
  if (typeof plane === "number") return plane
  const created = createPlaneVcpu(plane, thread, apicId)
  return typeof created === "number" ? created : 0
}
