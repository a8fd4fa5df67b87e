import { ACCESS, PAGE_2M } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { assert, PRIMITIVE } from "@vmpl-lab/sim"
import { loadedPage, offsetInPage, storedPage, translate } from "./GuestAccess.ts"
import { OP, type Operation, type OperationResult } from "./Operation.ts"
import type { Processor } from "./Processor.ts"
import { STEP, type Step } from "./Step.ts"
import { TRANSLATION } from "./Translation.ts"

// Loads and stores. Each stays inside one page and returns a STEP.

/** READ and READ_SHADOW_STACK, which is of the kind given. */
export const load = (cpu: Processor, operation: Operation, result: OperationResult, kind: number): Step => {
  const { address, size, cbit } = operation
  const view = loadedPage(cpu, address, kind, cbit)
  if (view === null) return cpu.failure
  const offset = offsetInPage(address)
  assert(offset + size <= PAGE_SIZE, "a load stays inside one page")
  result.hi = 0
  if (size === 1) result.lo = view.getUint8(offset)
  else if (size === 2) result.lo = view.getUint16(offset, true)
  else {
    result.lo = view.getUint32(offset, true)
    if (size === 8) result.hi = view.getUint32(offset + 4, true)
  }
  return STEP.DONE
}

/** WRITE and WRITE_SHADOW_STACK, which is of the kind given. */
export const store = (cpu: Processor, { address, size, cbit, lo, hi }: Operation, kind: number): Step => {
  const view = storedPage(cpu, address, kind, cbit)
  if (view === null) return cpu.failure
  const offset = offsetInPage(address)
  assert(offset + size <= PAGE_SIZE, "a store stays inside one page")
  if (size === 1) view.setUint8(offset, lo)
  else if (size === 2) view.setUint16(offset, lo, true)
  else {
    view.setUint32(offset, lo, true)
    if (size === 8) view.setUint32(offset + 4, hi, true)
  }
  return STEP.DONE
}

export const exchange = (cpu: Processor, { address, lo, cbit }: Operation, result: OperationResult): Step => {
  const view = storedPage(cpu, address, ACCESS.WRITE, cbit)
  if (view === null) return cpu.failure
  result.lo = view.getUint8(offsetInPage(address))
  result.hi = 0
  view.setUint8(offsetInPage(address), lo)
  return STEP.DONE
}

export const copy = (cpu: Processor, { op, address, cbit, bytes }: Operation): Step => {
  const writes = op === OP.WRITE_BYTES
  const page = writes ? storedPage(cpu, address, ACCESS.WRITE, cbit) : loadedPage(cpu, address, ACCESS.READ, cbit)
  if (page === null) return cpu.failure
  const offset = offsetInPage(address)
  assert(offset + bytes!.length <= PAGE_SIZE, "a copy stays inside one page")
  const there = new Uint8Array(page.buffer, page.byteOffset + offset, bytes!.length)
  if (writes) there.set(bytes!)
  else bytes!.set(there)
  return STEP.DONE
}

export const zero = (cpu: Processor, operation: Operation): Step => {
  const { address, cbit, size } = operation
  if (size > PAGE_SIZE) return zeroRegion(cpu, operation)
  const pfn = translate(cpu, address, ACCESS.WRITE, cbit)
  if (pfn < 0) return cpu.failure
  cpu.hardware.memory.replace(pfn, cpu.key, null)
  cpu.thread.charge(PRIMITIVE.zero_page_4k)
  return STEP.DONE
}

/** A 2 MiB region, at once where one nested leaf maps it: then the RMP's verdict on its first page is that on all. */
const zeroRegion = (cpu: Processor, { address, cbit, size }: Operation): Step => {
  const { memory } = cpu.hardware
  const first = translate(cpu, address, ACCESS.WRITE, cbit)
  if (first < 0) return cpu.failure
  const npt = cpu.npt!
  const isOneLeaf = npt.lookup(Math.floor(address / PAGE_SIZE)) === first && npt.pageSize === PAGE_2M
  if (isOneLeaf && (cpu.translation & TRANSLATION.PAGING) === 0) {
    memory.clearRegion(first, cpu.key)
    cpu.thread.charge(PRIMITIVE.zero_page_2m)
    return STEP.DONE
  }
  for (let offset = 0; offset < size; offset += PAGE_SIZE) {
    const pfn = translate(cpu, address + offset, ACCESS.WRITE, cbit)
    if (pfn < 0) return cpu.failure
    memory.replace(pfn, cpu.key, null)
    cpu.thread.charge(PRIMITIVE.zero_page_4k)
  }
  return STEP.DONE
}
