// @ghcb 0x80000003, 0x80000014, 0x80000015, 0x8000fffd, 0x8000fffe, 0x8000ffff
import { HV_DOORBELL, HV_FEATURE, NAE, PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { decodeIcr } from "../../apic/index.ts"
import { ERRNO, HANDLED } from "../Errno.ts"
import { EXIT_REASON, REQUEST, type Vcpu } from "../Vcpu.ts"
import type { GhcbEvent } from "./GhcbEvent.ts"
import type { GhcbExit } from "./GhcbExit.ts"
import { done, invalidInput } from "./Reply.ts"

/** The guest is through with an NMI: the next one may be injected. */
const nmiComplete = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  vcpu.events.nmiMasked = false
  vcpu.requests |= REQUEST.EVENT
  return done(vcpu, exit)
}

const ALL_ONES = 0xffff_ffff

/** Where the #HV doorbell page is. KVM has no preference. */
const doorbellPage = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  const { vm, current } = vcpu
  switch (exit.info1) {
    case HV_DOORBELL.GET_PREFERRED:
      return done(vcpu, exit, ALL_ONES, ALL_ONES)
    case HV_DOORBELL.SET: {
      const gpa = exit.info2
      const gfn = gpa / PAGE_SIZE
      if (gpa % PAGE_SIZE !== 0 || !vm.inMemorySlot(gfn) || !vm.isSharedForHost(gfn)) return invalidInput(vcpu, exit)
      current.doorbellGpa = gpa
      return done(vcpu, exit, exit.info2Lo, exit.info2Hi)
    }
    case HV_DOORBELL.QUERY:
      return current.doorbellGpa < 0
        ? done(vcpu, exit, ALL_ONES, ALL_ONES)
        : done(vcpu, exit, current.doorbellGpa % 0x1_0000_0000, Math.floor(current.doorbellGpa / 0x1_0000_0000))
    case HV_DOORBELL.CLEAR:
      current.doorbellGpa = -1
      return done(vcpu, exit, ALL_ONES, ALL_ONES)
    default:
      return invalidInput(vcpu, exit)
  }
}

/** An IPI by the value of an x2APIC ICR, without an APIC access of the guest's. */
const hvIpi = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  const { irqchip } = vcpu.vm
  if (irqchip === null) return invalidInput(vcpu, exit)
  irqchip.send(vcpu, decodeIcr(exit.info1Lo, exit.info1Hi, vcpu.apicId, true))
  return done(vcpu, exit)
}

/** Features are a matter of version 2. */
const hvFeatures = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number =>
  done(vcpu, exit, vcpu.vm.config.hvFeatures)

const terminationRequest = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  const set = exit.info1Lo & 0xf
  const reason = (exit.info1Lo >>> 4) & 0xff
  vcpu.run.exitReason = EXIT_REASON.SYSTEM_EVENT_SEV_TERM
  vcpu.run.detail = `guest at VMPL${vcpu.current.vmpl} terminates: reason set ${set}, reason ${reason}`
  return HANDLED.EXIT_TO_USER
}

/** The guest met an exit that it has no handler for: KVM gives up on it. */
const unsupportedEvent = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  const code = exit.info1Lo.toString(16)
  vcpu.run.detail = `guest at VMPL${vcpu.current.vmpl} does not support the event 0x${code}`
  return ERRNO.EINVAL
}

export const HV_EVENTS: ReadonlyArray<GhcbEvent> = [
  { code: NAE.NMI_COMPLETE, name: "NMI complete", needs: [], handle: nmiComplete },
  {
    code: NAE.HV_DOORBELL_PAGE,
    name: "#HV doorbell page",
    needs: [],
    snp: true,
    feature: HV_FEATURE.RESTRICTED_INJECTION,
    handle: doorbellPage
  },
  {
    code: NAE.HV_IPI,
    name: "#HV IPI",
    needs: [],
    snp: true,
    feature: HV_FEATURE.RESTRICTED_INJECTION,
    handle: hvIpi
  },
  { code: NAE.HV_FEATURES, name: "hypervisor features", needs: [], handle: hvFeatures },
  { code: NAE.TERMINATION_REQUEST, name: "termination request", needs: [], handle: terminationRequest },
  { code: NAE.UNSUPPORTED_EVENT, name: "unsupported event", needs: [], handle: unsupportedEvent }
]
