import { type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import { PIT_PORT } from "./Pit.ts"
import type { Vcpu } from "./Vcpu.ts"

/** A port access: elements of `size` bytes in `data`, which a read fills. */
export interface PortAccess {
  readonly port: number
  readonly size: number
  readonly isWrite: boolean
  readonly data: Uint8Array
}

/**
 * Port accesses that KVM serves itself: the PIT, a byte at a time; the further bytes of a wider read are zeros.
 * @returns false when user space has to
 */
export const kernelPio = (vcpu: Vcpu, thread: HostThread, { port, size, isWrite, data }: PortAccess): boolean => {
  const { pit } = vcpu.vm
  if (pit === null || port < PIT_PORT.CHANNEL0 || port > PIT_PORT.CONTROL) return false
  for (let at = 0; at < data.length; at += size) {
    thread.charge(PRIMITIVE.port_emulation_in_kernel)
    if (isWrite) pit.write(port, data[at]!, thread.time)
    else data[at] = pit.read(port, thread.time)
  }
  return true
}
