export * from "./AsidTable.ts"
export * from "./Firmware.ts"
export * from "./GuestContext.ts"
export * from "./LaunchDigest.ts"
export * from "./LaunchPages.ts"
export type { MetadataEntry } from "./Metadata.ts"
export type { PageCheck, PageView } from "./PageChecks.ts"
export type * from "./PageCommand.ts"
export { PageCommands, type PageContentsPort } from "./PageCommands.ts"
export type { ContentsOwner } from "./PageContents.ts"
export * from "./Policy.ts"
export * from "./Ports.ts"
export {
  PACKET_COMPRESSED,
  policyMac,
  type SevPacketHeader,
  sealSecret,
  secretMac,
  sevMeasurement
} from "./SevChannel.ts"
export * from "./SevFirmware.ts"
export { SEV_GUEST_STATE, type SevGuest, type SevGuestState, type TransportKeys } from "./SevGuest.ts"
export * from "./SevPolicy.ts"
export * from "./SnpPlatform.ts"
export * from "./Status.ts"
