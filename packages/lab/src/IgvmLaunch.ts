import { AP_TRAMPOLINE_GPA } from "@vmpl-lab/guest"
import {
  checkForKvm,
  FirmwareError,
  type IgvmFile,
  igvmPlan,
  type LaunchPage,
  type MemorySlot,
  type RequiredMemory
} from "@vmpl-lab/hypervisor"
import { PAGE_TYPE } from "@vmpl-lab/psp"
import { getU64, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { decodeParameters, IMAGE, type SvsmParameters, svsmCodePage } from "@vmpl-lab/svsm"
import {
  HIGH_RAM_GPA,
  heapSize,
  heapStart,
  highRamSlot,
  LAUNCH_MAX,
  type LaunchNeeds,
  PLAIN_NEEDS,
  type SvsmLaunch
} from "./SvsmLaunch.ts"

const hex = (value: number): string => `0x${value.toString(16)}`

/** Slots for the memory that a file requires: ranges that touch are one. */
const slotsOf = (name: string, required: ReadonlyArray<RequiredMemory>): ReadonlyArray<MemorySlot> => {
  const slots: Array<{ gfn: number; pages: number }> = []
  for (const { gpa, size } of [...required].sort((a, b) => a.gpa - b.gpa)) {
    const [gfn, pages] = [gpa / PAGE_SIZE, size / PAGE_SIZE]
    const last = slots.at(-1)
    if (last === undefined || last.gfn + last.pages < gfn) slots.push({ gfn, pages })
    else last.pages = Math.max(last.pages, gfn + pages - last.gfn)
  }
  const end = (slots.at(-1)?.gfn ?? 0) + (slots.at(-1)?.pages ?? 0)
  if (end * PAGE_SIZE > HIGH_RAM_GPA) {
    throw new FirmwareError(name, `memory is required up to ${hex(end * PAGE_SIZE)}, expected it below 4 GiB`)
  }
  return slots
}

const isSame = (a: Uint8Array, b: Uint8Array | null): boolean => b !== null && Buffer.compare(a, b) === 0

/** Where the SVSM's image is: programs are not in the file, so it must be the one that the simulator runs. */
const imageBase = (name: string, pages: ReadonlyArray<LaunchPage>): number => {
  const code = svsmCodePage()
  const page = pages.find(({ type, contents }) => type === PAGE_TYPE.NORMAL && isSame(code, contents))
  if (page === undefined) {
    const expected = "expected one: the simulator does not execute other images, it only measures them"
    throw new FirmwareError(name, `no page has the image of vmpl-lab's own SVSM, ${expected}`)
  }
  return page.gpa - IMAGE.CODE
}

/** What the parameters say of the file must be in it: nothing of theirs is measured, so the file's maker is to blame. */
const checkPlaces = (name: string, base: number, pages: ReadonlyArray<LaunchPage>, found: SvsmParameters): void => {
  if (found.svsm.gpa !== base) {
    throw new FirmwareError(name, `its parameters have the SVSM at gPA ${hex(found.svsm.gpa)}, expected ${hex(base)}`)
  }
  const named = [
    ["secrets", found.secretsGpa, PAGE_TYPE.SECRETS],
    ["CPUID", found.cpuidGpa, PAGE_TYPE.CPUID]
  ] as const
  for (const [what, at, expected] of named) {
    if (pages.some(({ gpa, type }) => gpa === at && type === expected)) continue
    throw new FirmwareError(name, `its parameters have the ${what} page at gPA ${hex(at)}, expected one there`)
  }
}

/** What the SVSM of a file was made for must be what the workload asks for. */
const checkNeeds = (name: string, found: SvsmParameters, needs: LaunchNeeds): void => {
  const asked: ReadonlyArray<readonly [what: string, found: unknown, asked: unknown]> = [
    ["guest level", found.guestVmpl, needs.guestVmpl],
    ["entries per call", found.entriesPerCall, needs.entriesPerCall],
    ["RAM above 4 GiB", found.highRam.size, needs.highRam],
    ["behaviour", found.behaviour, needs.behaviour ?? "specification"],
    ["interrupts", JSON.stringify(found.interrupts ?? null), JSON.stringify(needs.interrupts?.svsm ?? null)]
  ]
  for (const [what, is, wanted] of asked) {
    if (is === wanted) continue
    throw new FirmwareError(name, `its SVSM is made for ${what} ${is}, expected ${wanted} as the workload asks`)
  }
}

/**
 * The launch of an IGVM file that has this project's SVSM: every page, parameter and VMSA from the file, parameters
 * filled in by the VMM. Throws FirmwareError where the file, or KVM, does not allow it, or the workload needs another one.
 */
export const igvmLaunch = (file: IgvmFile, vcpus: number, asked: Partial<LaunchNeeds> = {}): SvsmLaunch => {
  const { name } = file
  const needs: LaunchNeeds = { ...PLAIN_NEEDS, ...asked }
  const { required } = igvmPlan(file)
  const memorySlots = [...slotsOf(name, required), ...highRamSlot(needs)]
  const { pages, shared, policy, idBlock } = igvmPlan(file, { environment: { vcpus, memory: memorySlots } })
  checkForKvm(name, { pages })
  const base = imageBase(name, pages)
  const page = pages.find(({ gpa }) => gpa === base + IMAGE.PARAMETERS)
  const parameters = page?.contents == null ? null : decodeParameters(page.contents)
  if (parameters === null) {
    const where = `gPA ${hex(base + IMAGE.PARAMETERS)}`
    throw new FirmwareError(name, `no parameters of ${vcpus} vCPUs for the SVSM at ${where}, expected them`)
  }
  checkPlaces(name, base, pages, parameters)
  checkNeeds(name, parameters, needs)
  const vmsa = pages.at(-1)!.contents!
  const entry = getU64(new DataView(vmsa.buffer, vmsa.byteOffset), VMSA.rip)
  if (entry !== base + IMAGE.BOOT_ENTRY) {
    throw new FirmwareError(name, `the VMSA starts at ${hex(entry)}, expected ${hex(base + IMAGE.BOOT_ENTRY)}`)
  }
  const inMemory = (gpa: number): boolean =>
    memorySlots.some(({ gfn, pages }) => gpa >= gfn * PAGE_SIZE && gpa < (gfn + pages) * PAGE_SIZE)
  const launched = pages.slice(0, -1)
  const outside = [...launched, ...shared].find(({ gpa }) => !inMemory(gpa))
  if (outside !== undefined) {
    throw new FirmwareError(name, `gPA ${hex(outside.gpa)} has a page but no REQUIRED_MEMORY, expected both`)
  }
  if (launched.length * PAGE_SIZE > LAUNCH_MAX) {
    throw new FirmwareError(name, `${launched.length} pages, expected at most ${LAUNCH_MAX / PAGE_SIZE}`)
  }
  if (launched.some(({ gpa }) => gpa === AP_TRAMPOLINE_GPA)) {
    throw new FirmwareError(name, "a page at gPA 0x8000, expected none there: the guest's APs start there")
  }
  const below = launched.filter(({ gpa }) => gpa < parameters.svsm.gpa)
  const heapGpa = heapStart(below.reduce((end, { gpa }) => Math.max(end, gpa + PAGE_SIZE), 0))
  if (heapGpa + heapSize(vcpus, needs) > parameters.ramSize) {
    throw new FirmwareError(name, `RAM ends at ${hex(parameters.ramSize)}, expected more for ${vcpus} vCPUs`)
  }
  const identity = { policy: policy ?? undefined, idBlock: idBlock ?? undefined, shared }
  return { plan: pages, memorySlots, parameters, heapGpa, identity }
}
