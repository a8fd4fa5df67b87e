// @ghcb 0x80000004, 0x80000005, 0x80000013, 0x80000017
import { AP_CREATION, AP_JUMP_TABLE, apicIdListPages, HV_FEATURE, NAE, PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import type { ApCreateRequest } from "../ApCreateRequest.ts"
import { holdUntilSipi } from "../ApReset.ts"
import { HANDLED } from "../Errno.ts"
import { AP_RESET_HOLD, EXIT_REASON, type Vcpu } from "../Vcpu.ts"
import type { GhcbEvent } from "./GhcbEvent.ts"
import type { GhcbExit } from "./GhcbExit.ts"
import { done, invalidInput } from "./Reply.ts"
import { writeGuest } from "./ScratchArea.ts"

/** AP reset hold: the answer is 0 until a SIPI makes it 1. */
const apResetHold = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  const handled = done(vcpu, exit, 0)
  if (handled === HANDLED.RESUME_GUEST) holdUntilSipi(vcpu, AP_RESET_HOLD.NAE_EVENT, exit.address)
  return handled
}

/** KVM keeps the address of the jump table and does not look into it. */
const apJumpTable = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  const { vm } = vcpu
  if (exit.info1 === AP_JUMP_TABLE.SET) {
    vm.apJumpTable = exit.info2
    return done(vcpu, exit)
  }
  if (exit.info1 !== AP_JUMP_TABLE.GET) return invalidInput(vcpu, exit)
  return done(vcpu, exit, vm.apJumpTable % 0x1_0000_0000, Math.floor(vm.apJumpTable / 0x1_0000_0000))
}

const apCreation = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const request: ApCreateRequest = {
    request: exit.info1Lo & 0xffff,
    vmpl: (exit.info1Lo >>> 16) & 0xf,
    apicId: exit.info1Hi,
    vmsaGpa: exit.info2,
    sevFeatures: exit.isValid(RAX) ? exit.value("rax") : -1,
    fromVmpl: vcpu.current.vmpl,
    fromApicId: vcpu.apicId
  }
  const replied = done(vcpu, exit)
  if (replied < 0) return replied
  const { meter } = vcpu.vm.kvm
  meter.creationRequested(request)
  const refused = (self: Vcpu): number => {
    meter.creationRefused(request, thread)
    return invalidInput(self, exit)
  }
  const serve = (self: Vcpu): number => {
    const handled = self.vm.operations.apCreate(self, thread, request)
    if (handled < 0) return refused(self)
    if (handled !== HANDLED.EXIT_TO_USER) return handled
    // User space has created the AP, or what KVM lacked for it: then KVM serves the event anew.
    const isServed = self.run.exitReason === EXIT_REASON.AP_CREATE
    self.complete = (again, ret) => (ret < 0 ? refused(again) : isServed ? HANDLED.RESUME_GUEST : serve(again))
    return handled
  }
  return serve(vcpu)
}

const RAX = 0x1f8

/**
 * The APIC IDs of all vCPUs. RAX says how many pages the buffer has, and how many it takes in the answer; a buffer that
 * is too small stays as it was.
 */
const apicIdList = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  const ids = [...new Set([...vcpu.vm.vcpus.values()].map(({ apicId }) => apicId))].sort((a, b) => a - b)
  const needed = apicIdListPages(ids.length)
  const pages = exit.value("rax")
  if (exit.info1 % PAGE_SIZE !== 0) return invalidInput(vcpu, exit)
  if (pages >= needed) {
    const list = new Uint8Array(4 + 4 * ids.length)
    const view = new DataView(list.buffer)
    for (const [i, value] of [ids.length, ...ids].entries()) view.setUint32(4 * i, value, true)
    if (!isShared(vcpu, exit.info1, needed) || !writeGuest(vcpu.vm, exit.info1, list)) return invalidInput(vcpu, exit)
  }
  exit.put("rax", needed)
  return done(vcpu, exit)
}

const isShared = ({ vm }: Vcpu, gpa: number, pages: number): boolean => {
  for (let i = 0; i < pages; i++) if (!vm.isSharedForHost(gpa / PAGE_SIZE + i)) return false
  return true
}

export const AP_EVENTS: ReadonlyArray<GhcbEvent> = [
  { code: NAE.AP_RESET_HOLD, name: "AP reset hold", needs: [], handle: apResetHold },
  { code: NAE.AP_JUMP_TABLE, name: "AP jump table", needs: [], handle: apJumpTable },
  {
    code: NAE.SNP_AP_CREATION,
    name: "SNP AP creation",
    needs: [],
    needsAlso: ({ info1Lo }) => ((info1Lo & 0xffff) === AP_CREATION.DESTROY ? [] : ["rax"]),
    snp: true,
    feature: HV_FEATURE.AP_CREATION,
    handle: apCreation
  },
  {
    code: NAE.APIC_ID_LIST,
    name: "APIC ID list",
    needs: ["rax"],
    snp: true,
    feature: HV_FEATURE.APIC_ID_LIST,
    handle: apicIdList
  }
]
