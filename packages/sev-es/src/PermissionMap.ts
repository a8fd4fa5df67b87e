/**
 * I/O permission map: 3 pages, one bit for each port; 1 intercepts. An access of several bytes looks at as many bits.
 * @spec APM2 15.10.1
 */
export const IOPM_SIZE = 0x3000

/** Reads one byte of a map, which lies in system memory. */
export type MapByte = (offset: number) => number

/** Whether a port access of `size` bytes is intercepted by a map. */
export const ioIntercepted = (map: MapByte, port: number, size: number): boolean => {
  for (let bit = port; bit < port + size; bit++) if (((map(bit >> 3) >>> (bit & 7)) & 1) !== 0) return true
  return false
}

/**
 * MSR permission map: 2 pages with two bits for each MSR of three ranges, read below write; 1 intercepts. MSRs outside
 * of the ranges are always intercepted.
 * @spec APM2 15.11
 */
export const MSRPM_SIZE = 0x2000

const RANGES = [0x0000_0000, 0xc000_0000, 0xc001_0000]
const RANGE_MSRS = 0x2000
const RANGE_BYTES = 2048

/** Bit number of an MSR's read permission in the map, -1 when the map does not cover it; write is the next bit. */
export const msrpmBit = (msr: number): number => {
  for (let range = 0; range < RANGES.length; range++) {
    const offset = msr - RANGES[range]!
    if (offset >= 0 && offset < RANGE_MSRS) return range * RANGE_BYTES * 8 + offset * 2
  }
  return -1
}

/** Whether a map intercepts RDMSR or WRMSR of an MSR. */
export const msrIntercepted = (map: MapByte, msr: number, write: boolean): boolean => {
  const bit = msrpmBit(msr)
  if (bit < 0) return true
  const at = bit + (write ? 1 : 0)
  return ((map(at >> 3) >>> (at & 7)) & 1) !== 0
}

/** Sets what a map does with an MSR; false lets the guest pass. */
export const setMsrIntercept = (map: Uint8Array, msr: number, read: boolean, write: boolean): void => {
  const bit = msrpmBit(msr)
  if (bit < 0) throw new RangeError(`MSR 0x${msr.toString(16)} is in no range of the permission map`)
  const put = (at: number, on: boolean): void => {
    map[at >> 3] = on ? map[at >> 3]! | (1 << (at & 7)) : map[at >> 3]! & ~(1 << (at & 7))
  }
  put(bit, read)
  put(bit + 1, write)
}
