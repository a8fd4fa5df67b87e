// @ghcb 0x7b, 0x80000001, 0x80000002
import { decodeIoio, EXIT, NAE, REASON } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { HANDLED } from "../Errno.ts"
import { kernelMmio } from "../KernelMmio.ts"
import { kernelPio } from "../KernelPio.ts"
import { EXIT_REASON, type Vcpu } from "../Vcpu.ts"
import type { GhcbEvent } from "./GhcbEvent.ts"
import type { GhcbExit } from "./GhcbExit.ts"
import { done, invalidInput, refuse } from "./Reply.ts"
import { type ScratchArea, scratchArea } from "./ScratchArea.ts"

const little = (bytes: Uint8Array): number => bytes.reduceRight((value, byte) => value * 256 + byte, 0)
const toBytes = (value: number, size: number): Uint8Array =>
  Uint8Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** i) % 256)

/** Port access: the PIT in the kernel, where there is one; user space emulates everything else. */
const ioio = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const { port, size, in: isIn, string } = decodeIoio(exit.info1Lo)
  if (size === 0 || exit.info1Hi !== 0) return invalidInput(vcpu, exit)
  const count = string ? exit.info2 : 1
  if (count === 0) return done(vcpu, exit)
  const area = string ? scratchArea(vcpu, exit, count * size, isIn) : null
  if (string && area === null) return refuse(vcpu, exit, REASON.INVALID_SCRATCH_AREA)
  const { run } = vcpu
  run.exitReason = EXIT_REASON.IO
  run.address = port
  run.size = size
  run.count = count
  run.isWrite = !isIn
  run.data = isIn
    ? new Uint8Array(count * size)
    : area === null
      ? toBytes(exit.register("rax")[0], size)
      : area.read(0, count * size)
  const { trace } = vcpu.vm.kvm
  if (!isIn) trace?.pio(thread, true, port, size, count, little(run.data.subarray(0, size)))
  const complete = (self: Vcpu): number => {
    if (isIn) {
      trace?.pio(thread, false, port, size, count, little(self.run.data.subarray(0, size)))
      if (area === null) exit.put("rax", little(self.run.data))
      else area.write(0, self.run.data)
    }
    return done(self, exit)
  }
  if (kernelPio(vcpu, thread, { port, size, isWrite: !isIn, data: run.data })) return complete(vcpu)
  vcpu.complete = complete
  return HANDLED.EXIT_TO_USER
}

/** Bytes that KVM moves at once. */
const FRAGMENT = 8

/**
 * MMIO: the local APIC and the I/O APIC in the kernel, everything else in user space, 8 bytes at a time.
 * @spec Linux kvm_sev_es_mmio_read, kvm_sev_es_mmio_write
 */
const mmio = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const isWrite = exit.code === NAE.MMIO_WRITE
  const area = scratchArea(vcpu, exit, exit.info2, !isWrite)
  if (area === null) return refuse(vcpu, exit, REASON.INVALID_SCRATCH_AREA)
  if (exit.info2 === 0) return invalidInput(vcpu, exit)
  return fragment(vcpu, thread, exit, area, isWrite, 0)
}

const fragment = (
  vcpu: Vcpu,
  thread: HostThread,
  exit: GhcbExit,
  area: ScratchArea,
  isWrite: boolean,
  from: number
): number => {
  for (let offset = from; offset < area.length; offset += FRAGMENT) {
    const length = Math.min(FRAGMENT, area.length - offset)
    const gpa = exit.info1 + offset
    const data = isWrite ? area.read(offset, length) : new Uint8Array(length)
    const { trace } = vcpu.vm.kvm
    const value = (bytes: Uint8Array): bigint => bytes.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n)
    if (isWrite) trace?.mmio(thread, "write", length, gpa, value(data))
    if (kernelMmio(vcpu, gpa, data, isWrite)) {
      if (!isWrite) {
        trace?.mmio(thread, "read", length, gpa, value(data))
        area.write(offset, data)
      }
      continue
    }
    if (!isWrite) trace?.mmio(thread, "unsatisfied-read", length, gpa, 0n)
    const { run } = vcpu
    run.exitReason = EXIT_REASON.MMIO
    run.address = gpa
    run.size = length
    run.count = 1
    run.isWrite = isWrite
    run.data = data
    vcpu.complete = (self) => {
      if (!isWrite) {
        trace?.mmio(thread, "read", length, gpa, value(self.run.data))
        area.write(offset, self.run.data)
      }
      return fragment(self, thread, exit, area, isWrite, offset + FRAGMENT)
    }
    return HANDLED.EXIT_TO_USER
  }
  return done(vcpu, exit)
}

export const IO_EVENTS: ReadonlyArray<GhcbEvent> = [
  {
    code: EXIT.IOIO,
    name: "IOIO",
    needs: [],
    needsAlso: ({ info1Lo }) => {
      const { string, in: isIn } = decodeIoio(info1Lo)
      return string ? ["sw_scratch"] : isIn ? [] : ["rax"]
    },
    handle: ioio
  },
  { code: NAE.MMIO_READ, name: "MMIO read", needs: ["sw_scratch"], handle: mmio },
  { code: NAE.MMIO_WRITE, name: "MMIO write", needs: ["sw_scratch"], handle: mmio }
]
