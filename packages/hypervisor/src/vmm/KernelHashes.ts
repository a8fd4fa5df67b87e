import { hash } from "node:crypto"
import { GUID_SIZE, guidBytes, PAGE_SIZE } from "@vmpl-lab/sev-es"

/** What is booted directly, without a boot loader. */
export interface KernelFiles {
  readonly kernel: Uint8Array
  /** Absent: hashed as an empty file. */
  readonly initrd?: Uint8Array | null | undefined
  /** Kernel command line without its final NUL. Absent: the empty line. */
  readonly append?: string | null | undefined
}

const TABLE_GUID = "9438d606-4f22-4cc9-b479-a793d411fd21"
const CMDLINE_GUID = "97d02dd8-bd20-4c94-aa78-e7714d36ab2a"
const INITRD_GUID = "44baf731-3a2f-4bd7-9af1-41e29169781d"
const KERNEL_GUID = "4de79437-abd2-427f-b835-d5b172d2045b"

const SHA256_SIZE = 32
const HEADER_SIZE = GUID_SIZE + 2
const ENTRY_SIZE = GUID_SIZE + 2 + SHA256_SIZE
const UNPADDED_SIZE = HEADER_SIZE + 3 * ENTRY_SIZE

/** Bytes of the table, padded to 16: header and three entries are 168. */
export const HASH_TABLE_SIZE = Math.ceil(UNPADDED_SIZE / 16) * 16

/**
 * The table by which the firmware checks what the VMM loads: {GUID, u16 length}, then {GUID, u16 length, SHA-256} for
 * command line, initrd and kernel. The command line is hashed with its NUL. It must equal QEMU's byte by byte.
 * @spec QEMU target/i386 "kernel hashes", OVMF BlobVerifierLibSevHashes
 */
export const kernelHashTable = (files: KernelFiles): Uint8Array => {
  const table = new Uint8Array(HASH_TABLE_SIZE)
  const view = new DataView(table.buffer)
  table.set(guidBytes(TABLE_GUID), 0)
  view.setUint16(GUID_SIZE, UNPADDED_SIZE, true)
  const entries: ReadonlyArray<readonly [string, Uint8Array]> = [
    [CMDLINE_GUID, Buffer.from(`${files.append ?? ""}\0`, "utf8")],
    [INITRD_GUID, files.initrd ?? new Uint8Array(0)],
    [KERNEL_GUID, files.kernel]
  ]
  for (const [index, [guid, data]] of entries.entries()) {
    const offset = HEADER_SIZE + index * ENTRY_SIZE
    table.set(guidBytes(guid), offset)
    view.setUint16(offset + GUID_SIZE, ENTRY_SIZE, true)
    table.set(hash("sha256", data, "buffer"), offset + GUID_SIZE + 2)
  }
  return table
}

/** The 4 KiB page that holds the table at byte `offset` and is zero elsewhere. */
export const kernelHashPage = (table: Uint8Array, offset: number): Uint8Array => {
  const page = new Uint8Array(PAGE_SIZE)
  page.set(table, offset)
  return page
}
