import { ACCESS, FAULT, PAGE_4K, type Rmp } from "@vmpl-lab/rmp"
import { PAGE_SIZE, toNumber } from "@vmpl-lab/sev-es"
import { HOST_ASID, type PhysicalMemory } from "./PhysicalMemory.ts"

const pfnOf = (spa: number): number => Math.floor(spa / PAGE_SIZE)
const offsetOf = (spa: number): number => spa % PAGE_SIZE

/**
 * System memory as host software sees it: loads are never checked by the RMP (a guest's private page reads as
 * ciphertext), stores are refused with #PF when the page is not hypervisor-owned. Addresses are system physical ones;
 * an access stays inside one page.
 * @spec APM2 15.36.10 table 15-39
 */
export class HostMemory {
  readonly #memory: PhysicalMemory
  readonly #rmp: Rmp

  constructor(memory: PhysicalMemory, rmp: Rmp) {
    this.#memory = memory
    this.#rmp = rmp
  }

  read8(spa: number): number {
    return this.#memory.read(pfnOf(spa), HOST_ASID).getUint8(offsetOf(spa))
  }

  read16(spa: number): number {
    return this.#memory.read(pfnOf(spa), HOST_ASID).getUint16(offsetOf(spa), true)
  }

  read32(spa: number): number {
    return this.#memory.read(pfnOf(spa), HOST_ASID).getUint32(offsetOf(spa), true)
  }

  /** Exact below 2^53; use two read32 for fields that software fills. */
  read64(spa: number): number {
    return toNumber(this.read32(spa), this.read32(spa + 4))
  }

  /** A copy of a page's bytes as the host sees them. */
  readPage(pfn: number): Uint8Array {
    const view = this.#memory.read(pfn, HOST_ASID)
    return Uint8Array.from(new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE))
  }

  /** @returns FAULT.NONE, or the #PF that the store takes */
  write8(spa: number, value: number): number {
    const fault = this.#rmp.checkHost(pfnOf(spa), ACCESS.WRITE, PAGE_4K)
    if (fault === FAULT.NONE) this.#memory.write(pfnOf(spa), HOST_ASID).setUint8(offsetOf(spa), value)
    return fault
  }

  /** @returns FAULT.NONE, or the #PF that the store takes */
  write32(spa: number, value: number): number {
    const fault = this.#rmp.checkHost(pfnOf(spa), ACCESS.WRITE, PAGE_4K)
    if (fault === FAULT.NONE) this.#memory.write(pfnOf(spa), HOST_ASID).setUint32(offsetOf(spa), value, true)
    return fault
  }

  /** @returns FAULT.NONE, or the #PF that the store takes */
  write64(spa: number, lo: number, hi: number): number {
    const fault = this.write32(spa, lo)
    return fault === FAULT.NONE ? this.write32(spa + 4, hi) : fault
  }

  /** Replaces a page, or zeroes it with null. @returns FAULT.NONE, or the #PF that the store takes */
  writePage(pfn: number, bytes: Uint8Array | null): number {
    const fault = this.#rmp.checkHost(pfn, ACCESS.WRITE, PAGE_4K)
    if (fault === FAULT.NONE) this.#memory.replace(pfn, HOST_ASID, bytes)
    return fault
  }
}
