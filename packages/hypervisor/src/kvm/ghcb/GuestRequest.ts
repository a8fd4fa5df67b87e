// @ghcb 0x80000011, 0x80000012
import { PAGE_4K, RETURN_CODE } from "@vmpl-lab/rmp"
import { EMPTY_CERTIFICATE_TABLE, GUEST_REQUEST_ERROR, PAGE_SIZE, REASON } from "@vmpl-lab/sev-es"
import { assert, type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import type { Vcpu } from "../Vcpu.ts"
import type { GhcbExit } from "./GhcbExit.ts"
import { done, refuse } from "./Reply.ts"
import { readGuest, writeGuest } from "./ScratchArea.ts"

/** Both pages aligned, and two pages. */
export const acceptsGuestRequest = ({ info1, info2 }: GhcbExit): boolean =>
  info1 % PAGE_SIZE === 0 && info2 % PAGE_SIZE === 0 && info1 !== info2

/**
 * A guest message goes to the AMD-SP and comes back, through pages of KVM's own: the guest's could change meanwhile. The
 * response page belongs to the firmware until it has answered.
 * @spec Linux snp_handle_guest_req
 */
export const guestRequest = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const { vm } = vcpu
  const request = readGuest(vm, exit.info1, PAGE_SIZE)
  const { guestRequest: port } = vm
  if (request === null || port === null || !vm.isSharedForHost(exit.info2 / PAGE_SIZE)) {
    return refuse(vcpu, exit, REASON.INVALID_INPUT)
  }
  const { frames, hardware } = vm.kvm
  const requestPfn = frames.allocate()
  const responsePfn = frames.allocate()
  const state = (assigned: boolean): void => {
    thread.charge(PRIMITIVE.rmpupdate_4k)
    const code = hardware.rmp.rmpupdate(responsePfn, assigned, PAGE_4K, assigned, 0, 0)
    assert(code === RETURN_CODE.SUCCESS, `RMPUPDATE of KVM's own page answers ${code}`)
  }
  const stored = hardware.host.writePage(requestPfn, request)
  assert(stored === 0, "KVM's own pages are hypervisor-owned")
  state(true)
  thread.charge(PRIMITIVE.psp_guest_request)
  const status = port.guestRequest(requestPfn, responsePfn)
  const response = hardware.host.readPage(responsePfn)
  const reclaimed = port.reclaim(responsePfn)
  assert(reclaimed === 0, `PAGE_RECLAIM of a Firmware page answers ${reclaimed}`)
  state(false)
  frames.free(requestPfn)
  frames.free(responsePfn)
  if (!writeGuest(vm, exit.info2, response)) return refuse(vcpu, exit, REASON.INVALID_INPUT)
  return done(vcpu, exit, status, 0)
}

const EMPTY_TABLE = new Uint8Array(EMPTY_CERTIFICATE_TABLE)

/**
 * The same with room for the host's certificates; a host without any gives an empty table. With too little room the
 * guest learns how many pages they need, and its message goes nowhere.
 * @spec GHCB "SNP extended guest request"
 */
export const extendedGuestRequest = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const data = exit.value("rax")
  const [pages] = exit.register("rbx")
  if (data % PAGE_SIZE !== 0) return refuse(vcpu, exit, REASON.INVALID_INPUT)
  const table = vcpu.vm.guestRequest?.certificates ?? EMPTY_TABLE
  const needed = Math.ceil(table.length / PAGE_SIZE)
  if (pages < needed) {
    exit.put("rbx", needed)
    return done(vcpu, exit, 0, GUEST_REQUEST_ERROR.INVALID_LEN)
  }
  const isShared = Array.from({ length: needed }, (_, i) => vcpu.vm.isSharedForHost(data / PAGE_SIZE + i)).every(
    Boolean
  )
  if (!isShared || !writeGuest(vcpu.vm, data, table)) return refuse(vcpu, exit, REASON.INVALID_INPUT)
  return guestRequest(vcpu, thread, exit)
}
