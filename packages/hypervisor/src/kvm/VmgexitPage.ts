import { GHCB, NAE, PAGE_SIZE, REASON, toNumber } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { ERRNO, HANDLED } from "./Errno.ts"
import { GHCB_EVENTS } from "./ghcb/Events.ts"
import type { GhcbEvent } from "./ghcb/GhcbEvent.ts"
import { GhcbExit } from "./ghcb/GhcbExit.ts"
import { refuse } from "./ghcb/Reply.ts"
import type { Vcpu } from "./Vcpu.ts"

const VERSION_OF_FEATURES = 2

/**
 * The GHCB page protocol. Checks in KVM's order: GPA zero, page mappable, registered, usage, the three exit fields
 * valid, event known, the event's own fields valid.
 * @spec GHCB "VMGEXIT events"; order: Linux sev_es_validate_vmgexit
 */
export const handleVmgexitPage = (vcpu: Vcpu, thread: HostThread, gpaLo: number, gpaHi: number): number => {
  const { vm } = vcpu
  const { kvm, config } = vm
  const gpa = toNumber(gpaLo, gpaHi)
  if (gpa === 0) return HANDLED.RESUME_GUEST
  const frame = vm.frameForHost(gpa / PAGE_SIZE)
  if (frame < 0) return HANDLED.RESUME_GUEST
  if (config.kind === "snp" && gpa / PAGE_SIZE !== vcpu.current.registeredGhcbGfn) {
    vcpu.run.detail = `GHCB at GPA 0x${gpa.toString(16)} is not the registered one`
    return ERRNO.EINVAL
  }
  const exit = new GhcbExit(kvm.hardware.host, frame, gpa)
  exit.clearBitmap()
  if (kvm.trace !== null) {
    const { code, codeHi, info1Lo, info1Hi, info2Lo, info2Hi } = exit
    kvm.trace.vmgexit(thread, "kvm_vmgexit_enter", vcpu.id, [code, codeHi], [info1Lo, info1Hi], [info2Lo, info2Hi])
    vcpu.openGhcb = exit
  }
  return serve(vcpu, thread, exit)
}

const serve = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  if (exit.usage !== 0) return refuse(vcpu, exit, REASON.INVALID_USAGE)
  const isComplete =
    exit.isValid(GHCB.sw_exit_code) && exit.isValid(GHCB.sw_exit_info_1) && exit.isValid(GHCB.sw_exit_info_2)
  if (!isComplete) return refuse(vcpu, exit, REASON.MISSING_INPUT)
  const event = eventOf(vcpu, exit)
  if (event === undefined) return refuse(vcpu, exit, REASON.INVALID_EVENT)
  return hasInputs(vcpu, exit, event) ? event.handle(vcpu, thread, exit) : refuse(vcpu, exit, REASON.MISSING_INPUT)
}

/** The event, if this KVM knows it: what needs a feature that is not offered, it does not. */
const eventOf = ({ vm: { config } }: Vcpu, { code, codeHi }: GhcbExit): GhcbEvent | undefined => {
  if (codeHi !== 0) return undefined
  const event = GHCB_EVENTS.get(code)
  if (event?.feature !== undefined && (config.hvFeatures & event.feature) === 0) return undefined
  if (code === NAE.HV_FEATURES && config.ghcbVersionMax < VERSION_OF_FEATURES) return undefined
  return event
}

/** KVM's validator answers what an SNP event of another guest lacks as it answers any missing field. */
const hasInputs = ({ vm: { config } }: Vcpu, exit: GhcbExit, event: GhcbEvent): boolean => {
  if (event.snp === true && config.kind !== "snp") return false
  for (const name of event.needs) if (!exit.isValid(GHCB[name])) return false
  for (const name of event.needsAlso?.(exit) ?? []) if (!exit.isValid(GHCB[name])) return false
  return event.accepts?.(exit) ?? true
}

/** sev_es_unmap_ghcb: the last thing before VMRUN, when user space has answered too. */
export const closeGhcb = (vcpu: Vcpu, thread: HostThread): void => {
  const { openGhcb: exit } = vcpu
  if (exit === null) return
  vcpu.openGhcb = null
  const { host } = vcpu.vm.kvm.hardware
  const at = (offset: number): readonly [number, number] => [
    host.read32(exit.address + offset),
    host.read32(exit.address + offset + 4)
  ]
  const { trace } = vcpu.vm.kvm
  const code = [exit.code, exit.codeHi] as const
  trace?.vmgexit(thread, "kvm_vmgexit_exit", vcpu.id, code, at(GHCB.sw_exit_info_1), at(GHCB.sw_exit_info_2))
}
