import type { IgvmHeaderName } from "./Headers.ts"

/** What a VMM knows that a file wants to be told in its parameter areas. */
export interface IgvmEnvironment {
  readonly vcpus: number
  /** RAM in ascending order. */
  readonly memory: ReadonlyArray<{ readonly gfn: number; readonly pages: number }>
  /** For the guest, ASCII; empty when left out. */
  readonly commandLine?: string
}

/** Parameters by which a file asks for something. */
export const PARAMETERS: ReadonlyArray<IgvmHeaderName> = [
  "VP_COUNT",
  "SRAT",
  "MADT",
  "MMIO_RANGES",
  "MEMORY_MAP",
  "COMMAND_LINE",
  "SLIT",
  "PPTT",
  "DEVICE_TREE",
  "ENVIRONMENT_INFO"
]

const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}

/** {first page, pages, type, flags, reserved}; the last one has no pages. Type 0 is memory. @spec IGVM MEMORY_MAP */
const MAP_ENTRY_SIZE = 24

const memoryMap = ({ memory }: IgvmEnvironment): Uint8Array => {
  const bytes = new Uint8Array((memory.length + 1) * MAP_ENTRY_SIZE)
  const view = new DataView(bytes.buffer)
  for (const [i, { gfn, pages }] of memory.entries()) {
    view.setBigUint64(i * MAP_ENTRY_SIZE, BigInt(gfn), true)
    view.setBigUint64(i * MAP_ENTRY_SIZE + 8, BigInt(pages), true)
  }
  return bytes
}

/** ACPI's table header, and what of it is not zero here. @spec ACPI 5.2.6 */
const TABLE = { length: 4, revision: 8, checksum: 9, oemId: 10, oemTableId: 16, creatorId: 28, SIZE: 36 } as const
const MADT_REVISION = 5
const LOCAL_APIC_ADDRESS = 0xfee0_0000
/** Processors with greater APIC IDs have an x2APIC's entry. */
const APIC_ID_MAX = 254
const ENABLED = 1

/** @spec ACPI 5.2.12.2, 5.2.12.12 */
const processor = (apicId: number): Uint8Array => {
  if (apicId <= APIC_ID_MAX) return Uint8Array.of(0, 8, apicId, apicId, ...u32(ENABLED))
  return Uint8Array.of(9, 16, 0, 0, ...u32(apicId), ...u32(ENABLED), ...u32(apicId))
}

/** The vCPUs, by their APIC IDs. @spec ACPI 5.2.12 */
const madt = ({ vcpus }: IgvmEnvironment): Uint8Array => {
  const entries = Array.from({ length: vcpus }, (_, apicId) => processor(apicId))
  const bytes = Uint8Array.from([
    ...new Uint8Array(TABLE.SIZE),
    ...u32(LOCAL_APIC_ADDRESS),
    ...u32(0),
    ...entries.flatMap((entry) => [...entry])
  ])
  const text = (at: number, value: string): void => bytes.set(Buffer.from(value, "latin1"), at)
  text(0, "APIC")
  bytes.set(u32(bytes.length), TABLE.length)
  bytes[TABLE.revision] = MADT_REVISION
  text(TABLE.oemId, "VMPL  ")
  text(TABLE.oemTableId, "VMPLLAB ")
  text(TABLE.creatorId, "VMPL")
  // All bytes together are zero.
  bytes[TABLE.checksum] = -bytes.reduce((sum, byte) => sum + byte, 0)
  return bytes
}

/** Bit 0 would say that memory is shared until the guest asks for it; this VMM's is private from the start. */
const ENVIRONMENT = 0

/** What the VMM writes for a parameter; null for one that it has nothing for. @spec IGVM PARAMETER */
export const parameterBytes = (name: IgvmHeaderName, environment: IgvmEnvironment): Uint8Array | null => {
  switch (name) {
    case "VP_COUNT":
      return u32(environment.vcpus)
    case "MEMORY_MAP":
      return memoryMap(environment)
    case "MADT":
      return madt(environment)
    case "COMMAND_LINE":
      return Uint8Array.of(...Buffer.from(environment.commandLine ?? "", "latin1"), 0)
    case "ENVIRONMENT_INFO":
      return u32(ENVIRONMENT)
    default:
      return null
  }
}
