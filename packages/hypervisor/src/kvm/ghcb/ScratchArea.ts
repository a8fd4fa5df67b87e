import { GHCB, PAGE_SIZE, SCRATCH_AREA_LIMIT, SHARED_BUFFER_SIZE } from "@vmpl-lab/sev-es"
import type { Vcpu } from "../Vcpu.ts"
import type { Vm } from "../Vm.ts"
import type { GhcbExit } from "./GhcbExit.ts"

/**
 * The memory that an event moves data through. Inside the GHCB page it is that page itself, which the guest may change
 * while it is used; elsewhere it is a private copy, and what was read into it goes back just before the next VMRUN.
 */
export interface ScratchArea {
  readonly gpa: number
  readonly length: number
  /** The bytes as of now. */
  readonly read: (offset: number, length: number) => Uint8Array
  readonly write: (offset: number, bytes: Uint8Array) => void
}

/**
 * setup_vmgexit_scratch: the area's rules.
 * @param toGuest the event fills the area
 * @returns the area, or null for reason INVALID_SCRATCH_AREA
 * @spec GHCB "scratch area"; Linux setup_vmgexit_scratch
 */
export const scratchArea = (vcpu: Vcpu, exit: GhcbExit, length: number, toGuest: boolean): ScratchArea | null => {
  const [lo, hi] = exit.register("sw_scratch")
  const gpa = hi * 0x1_0000_0000 + lo
  if (gpa === 0 || length < 0 || !Number.isSafeInteger(gpa + length)) return null
  const begin = exit.gpa + GHCB.shared_buffer
  if (Math.floor(gpa / PAGE_SIZE) === exit.gpa / PAGE_SIZE) {
    if (gpa < begin || gpa + length > begin + SHARED_BUFFER_SIZE) return null
    return inPage(vcpu.vm, exit, gpa, length)
  }
  if (length > SCRATCH_AREA_LIMIT) return null
  return copied(vcpu, gpa, length, toGuest)
}

const inPage = (vm: Vm, exit: GhcbExit, gpa: number, length: number): ScratchArea => {
  const { host } = vm.kvm.hardware
  const at = exit.address + (gpa - exit.gpa)
  return {
    gpa,
    length,
    read: (offset, size) => Uint8Array.from({ length: size }, (_, i) => host.read8(at + offset + i)),
    write: (offset, bytes) => {
      for (const [i, byte] of bytes.entries()) host.write8(at + offset + i, byte)
    }
  }
}

const copied = (vcpu: Vcpu, gpa: number, length: number, toGuest: boolean): ScratchArea | null => {
  const copy = readGuest(vcpu.vm, gpa, length)
  if (copy === null) return null
  if (toGuest) vcpu.scratchToSync = { gpa, bytes: copy }
  return {
    gpa,
    length,
    read: (offset, size) => copy.slice(offset, offset + size),
    write: (offset, bytes) => copy.set(bytes, offset)
  }
}

/** Bytes of guest memory as the host sees them; null where there is no memory. @spec Linux kvm_read_guest */
export const readGuest = (vm: Vm, gpa: number, length: number): Uint8Array | null => {
  const { host } = vm.kvm.hardware
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) {
    const frame = vm.frameForHost(Math.floor((gpa + i) / PAGE_SIZE))
    if (frame < 0) return null
    bytes[i] = host.read8(frame * PAGE_SIZE + ((gpa + i) % PAGE_SIZE))
  }
  return bytes
}

/** Stores into guest memory. @returns false where there is no memory or a page is the guest's own */
export const writeGuest = (vm: Vm, gpa: number, bytes: Uint8Array): boolean => {
  const { host } = vm.kvm.hardware
  for (const [i, byte] of bytes.entries()) {
    const frame = vm.frameForHost(Math.floor((gpa + i) / PAGE_SIZE))
    if (frame < 0 || host.write8(frame * PAGE_SIZE + ((gpa + i) % PAGE_SIZE), byte) !== 0) return false
  }
  return true
}

/** What was read into a copied area goes to the guest: the last thing before VMRUN. A guest that took it away loses it. */
export const syncScratch = (vcpu: Vcpu): void => {
  const { scratchToSync } = vcpu
  if (scratchToSync === null) return
  vcpu.scratchToSync = null
  writeGuest(vcpu.vm, scratchToSync.gpa, scratchToSync.bytes)
}
