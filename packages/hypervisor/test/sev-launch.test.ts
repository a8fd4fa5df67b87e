import { AsidTable, SEV_POLICY, SevFirmware, sevMeasurement } from "@vmpl-lab/psp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { PhysicalMemory } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import {
  FIRMWARE_END,
  type FirmwareImage,
  kernelHashTable,
  measureSev,
  measureSevEs,
  parseFirmware,
  type SevEsMeasurement,
  syntheticFirmware,
  vmsaPages
} from "../src/vmm/index.ts"

const HOST_ASID = 0
const ASID = 5
const BASE = 16
const VMSA_FRAME = 8

const image = parseFirmware(syntheticFirmware(), "synthetic")
const withHashes: FirmwareImage = { ...image, hashTable: { gpa: FIRMWARE_END - image.bytes.length, size: 0x400 } }
const hashes = kernelHashTable({ kernel: new Uint8Array([1, 2, 3]), append: "quiet" })

const bytesOf = (view: DataView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice()

/** Memory of a machine, with the firmware image where the guest's RAM is. */
const makeMachine = (minSevAsid: number) => {
  const memory = new PhysicalMemory(1024)
  const sealed: Array<number> = []
  const firmware = new SevFirmware(
    {
      readPlain: (pfn) => bytesOf(memory.read(pfn, HOST_ASID)),
      writePlain: (pfn, contents) => memory.replace(pfn, HOST_ASID, contents),
      readEncrypted: (pfn, asid) => bytesOf(memory.read(pfn, asid)),
      writeEncrypted: (pfn, asid, contents) => memory.replace(pfn, asid, contents),
      createKey: (asid, key) => memory.setKey(asid, key),
      destroyKey: (asid) => memory.dropKey(asid)
    },
    { seed: 1, asids: new AsidTable({ minSevAsid }), vmsaSealed: (pfn) => sealed.push(pfn) }
  )
  const load = (pfn: number, bytes: Uint8Array): void => {
    for (let offset = 0; offset < bytes.length; offset += PAGE_SIZE) {
      const page = new Uint8Array(PAGE_SIZE)
      page.set(bytes.subarray(offset, offset + PAGE_SIZE))
      memory.replace(pfn + offset / PAGE_SIZE, HOST_ASID, page)
    }
  }
  const read = (pfn: number): Uint8Array => bytesOf(memory.read(pfn, ASID))
  return { memory, firmware, sealed, load, read }
}

/** Launches as a VMM does: the image in pieces of `piece` bytes, the table of hashes, VMSAs. @returns LD */
const launch = (
  policy: number,
  { image: { bytes }, kernelHashes }: Pick<SevEsMeasurement, "image" | "kernelHashes">,
  vmsas: ReadonlyArray<Uint8Array>,
  piece: number
) => {
  const machine = makeMachine((policy & SEV_POLICY.ES) === 0 ? 1 : 100)
  const { firmware, load } = machine
  const { handle } = firmware.launchStart({ policy })
  expect(firmware.activate(handle, ASID)).toBe("SUCCESS")
  load(BASE, bytes)
  for (let offset = 0; offset < bytes.length; offset += piece) {
    const length = Math.min(piece, bytes.length - offset)
    expect(firmware.launchUpdateData({ handle, paddr: BASE * PAGE_SIZE + offset, length })).toBe("SUCCESS")
  }
  if (kernelHashes) {
    load(VMSA_FRAME - 1, kernelHashes)
    const range = { handle, paddr: (VMSA_FRAME - 1) * PAGE_SIZE, length: kernelHashes.length }
    expect(firmware.launchUpdateData(range)).toBe("SUCCESS")
  }
  for (const [vcpu, vmsa] of vmsas.entries()) {
    load(VMSA_FRAME + vcpu, vmsa)
    const range = { handle, paddr: (VMSA_FRAME + vcpu) * PAGE_SIZE, length: PAGE_SIZE }
    expect(firmware.launchUpdateVmsa(range)).toBe("SUCCESS")
  }
  const { status, measurement } = firmware.launchMeasure(handle)
  expect(status).toBe("SUCCESS")
  return { ...machine, handle, measurement: measurement!, digest: firmware.guest(handle)!.digest! }
}

describe("a launch by the SEV API", () => {
  const plan = { vmmType: "QEMU", vcpus: 3, signature: 0x80_0f12 } as const

  it.each([image.bytes.length, PAGE_SIZE, 48 * 7])(
    "of SEV, in pieces of %i bytes, measures what was expected",
    (piece) => {
      const { digest, read } = launch(0, { image }, [], piece)
      expect(digest).toEqual(measureSev({ image }))
      const last = image.bytes.length / PAGE_SIZE - 1
      expect(read(BASE)).toEqual(image.bytes.slice(0, PAGE_SIZE))
      expect(read(BASE + last)).toEqual(image.bytes.slice(last * PAGE_SIZE))
    }
  )

  it("of SEV with a kernel measures its hashes", () => {
    const input = { image: withHashes, kernelHashes: hashes }
    expect(launch(0, input, [], PAGE_SIZE).digest).toEqual(measureSev(input))
  })

  it("of SEV-ES measures one VMSA per vCPU, which the processor then knows", () => {
    const input = { image: withHashes, kernelHashes: hashes, ...plan }
    const vmsas = vmsaPages({ ...input, sevFeatures: 0 })
    const { digest, sealed, read } = launch(SEV_POLICY.ES, input, vmsas, PAGE_SIZE)
    expect(digest).toEqual(measureSevEs(input))
    expect(sealed).toEqual([VMSA_FRAME, VMSA_FRAME + 1, VMSA_FRAME + 2])
    expect(read(VMSA_FRAME)).toEqual(vmsas[0])
    const swapped = launch(SEV_POLICY.ES, input, [vmsas[1]!, vmsas[0]!, vmsas[2]!], PAGE_SIZE)
    expect(swapped.digest).not.toEqual(digest)
  })

  it("gives the owner an HMAC over that digest", () => {
    const input = { image, ...plan }
    const { measurement } = launch(SEV_POLICY.ES, input, vmsaPages({ ...input, sevFeatures: 0 }), PAGE_SIZE)
    const expected = sevMeasurement(new Uint8Array(16), {
      apiMajor: 1,
      apiMinor: 55,
      build: 25,
      policy: SEV_POLICY.ES,
      digest: measureSevEs(input),
      mnonce: measurement.slice(32)
    })
    expect(measurement.slice(0, 32)).toEqual(expected)
  })

  it("leaves the guest its memory when it gets another ASID", () => {
    const { firmware, handle, memory } = launch(0, { image }, [], PAGE_SIZE)
    firmware.deactivate(handle)
    expect(bytesOf(memory.read(BASE, HOST_ASID))).not.toEqual(image.bytes.slice(0, PAGE_SIZE))
    expect(firmware.activate(handle, ASID + 1)).toBe("SUCCESS")
    expect(bytesOf(memory.read(BASE, ASID + 1))).toEqual(image.bytes.slice(0, PAGE_SIZE))
  })
})
