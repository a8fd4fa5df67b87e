import { GUID_SIZE, guidBytes } from "@vmpl-lab/sev-es"

/** Names of services that attest. @spec SVSM 7 */
export const SERVICE_GUID = {
  MANIFEST: "63849ebb-3d92-4670-a1ff-58f9c94b87bb",
  VTPM: "c476f1eb-0123-45a5-9641-b4e7dde5bfe3",
  UEFI_MM: "a4453a59-9e1b-4787-a033-1986d6adbe55"
} as const

/** What a service says of itself to a verifier, in a report that is bound to it. A vTPM: the public part of its EK. */
export interface ServiceManifest {
  /** As text, lower case. */
  readonly guid: string
  /** The manifest of version 0 at the moment of the call. */
  readonly bytes: () => Uint8Array
}

const HEADER_SIZE = 24
const ENTRY_SIZE = 24

/**
 * The manifest of all services: GUID, total length and number, an entry for each with its GUID, offset and length, then
 * what they say in the same order.
 * @spec SVSM 7
 */
export const servicesManifest = (services: ReadonlyArray<ServiceManifest>): Uint8Array => {
  const parts = services.map((service) => service.bytes())
  const header = HEADER_SIZE + ENTRY_SIZE * services.length
  const size = parts.reduce((sum, { length }) => sum + length, header)
  const manifest = new Uint8Array(size)
  const view = new DataView(manifest.buffer)
  manifest.set(guidBytes(SERVICE_GUID.MANIFEST))
  view.setUint32(GUID_SIZE, size, true)
  view.setUint32(GUID_SIZE + 4, services.length, true)
  let offset = header
  for (const [i, { guid }] of services.entries()) {
    const entry = HEADER_SIZE + i * ENTRY_SIZE
    manifest.set(guidBytes(guid), entry)
    view.setUint32(entry + GUID_SIZE, offset, true)
    view.setUint32(entry + GUID_SIZE + 4, parts[i]!.length, true)
    manifest.set(parts[i]!, offset)
    offset += parts[i]!.length
  }
  return manifest
}
