/** A device's registers: a range of ports or of guest physical addresses. Offsets count from its base. */
export interface Device {
  readonly base: number
  readonly size: number
  /** Fills `data`, 1 to 8 bytes. */
  readonly read: (offset: number, data: Uint8Array) => void
  readonly write: (offset: number, data: Uint8Array) => void
}

const ONES = 0xff

/** What the VMM emulates, by port and by address. Where nothing answers, reads give ones and writes are lost. */
export class DeviceBus {
  readonly #ports: Array<Device> = []
  readonly #mmio: Array<Device> = []

  addPort(device: Device): void {
    this.#ports.push(device)
  }

  addMmio(device: Device): void {
    this.#mmio.push(device)
  }

  /** KVM_EXIT_IO: elements of `size` bytes, one after the other, at one port. */
  port(port: number, size: number, isWrite: boolean, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += size) access(this.#ports, port, isWrite, data.subarray(at, at + size))
  }

  /** KVM_EXIT_MMIO: up to 8 bytes. */
  mmio(gpa: number, isWrite: boolean, data: Uint8Array): void {
    access(this.#mmio, gpa, isWrite, data)
  }
}

const access = (devices: ReadonlyArray<Device>, address: number, isWrite: boolean, data: Uint8Array): void => {
  const device = devices.find(({ base, size }) => address >= base && address + data.length <= base + size)
  if (device === undefined) {
    if (!isWrite) data.fill(ONES)
  } else if (isWrite) device.write(address - device.base, data)
  else device.read(address - device.base, data)
}
