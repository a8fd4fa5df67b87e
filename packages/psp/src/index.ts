export {
  AEAD_AES_256_GCM,
  GUEST_MESSAGE,
  GUEST_MESSAGE_FIELDS,
  GUEST_MESSAGE_HEADER_SIZE,
  GUEST_MESSAGE_HEADER_VERSION,
  type GuestMessageHeader,
  MESSAGE_TYPE,
  openMessage,
  readMessageHeader,
  sealMessage
} from "@vmpl-lab/sev-es"
export * from "./AsidTable.ts"
export {
  REPORT,
  REPORT_FIELDS,
  REPORT_SIZE,
  REPORT_VERSIONS,
  type ReportVersion
} from "./AttestationReport.ts"
export {
  CPUID_REPLY_COUNT,
  type CpuidFunction,
  type CpuidPolicy,
  type CpuidValues,
  policedCpuid
} from "./CpuidMessage.ts"
export { publicKeyOf, SIGNATURE_SIZE, scalarFromExtraBits, signatureBytes, signP384 } from "./EcdsaP384.ts"
export * from "./Firmware.ts"
export * from "./GuestContext.ts"
export { GUEST_REQUEST_HEADER, GUEST_REQUEST_PAGES, type GuestRequest } from "./GuestRequest.ts"
export * from "./IdBlock.ts"
export {
  GUEST_FIELD,
  KEY_REPLY,
  KEY_REPLY_FIELDS,
  KEY_REPLY_SIZE,
  KEY_REQUEST,
  KEY_REQUEST_FIELDS,
  ROOT_KEY_VMRK
} from "./KeyMessage.ts"
export { KEY_SELECT } from "./KeySelect.ts"
export * from "./LaunchDigest.ts"
export * from "./LaunchPages.ts"
export type { MetadataEntry } from "./Metadata.ts"
export {
  EXPORT_REPLY,
  EXPORT_REPLY_FIELDS,
  EXPORT_REPLY_SIZE,
  EXPORT_REQUEST,
  EXPORT_REQUEST_FIELDS,
  INCOMING_REPLY_SIZE,
  INCOMING_REQUEST,
  INCOMING_REQUEST_FIELDS,
  OUTSIDE_CONTEXT
} from "./MigrationMessages.ts"
export type { PageCheck, PageView } from "./PageChecks.ts"
export type * from "./PageCommand.ts"
export { PageCommands, type PageContentsPort } from "./PageCommands.ts"
export type { ContentsOwner } from "./PageContents.ts"
export {
  COMMIT_SIZE,
  GUEST_STATUS,
  GUEST_STATUS_FIELDS,
  GUEST_STATUS_SIZE,
  PLATFORM_STATUS,
  PLATFORM_STATUS_FIELDS,
  PLATFORM_STATUS_SIZE,
  type PlatformConfig,
  type StatusAddress,
  VLEK_LOAD_SIZE,
  type VlekLoad
} from "./PlatformCommands.ts"
export * from "./PlatformIdentity.ts"
export * from "./Policy.ts"
export * from "./Ports.ts"
export {
  REPORT_REPLY,
  REPORT_REPLY_FIELDS,
  REPORT_REPLY_SIZE,
  REPORT_REQUEST,
  REPORT_REQUEST_FIELDS,
  REPORT_REQUEST_SIZE
} from "./ReportMessage.ts"
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
export {
  familyOf,
  isSinceTurin,
  TCB,
  TCB_SIZE,
  TCB_TURIN,
  type TcbLayout,
  type TcbVersion,
  tcbBytes,
  tcbOf
} from "./Tcb.ts"
export { TSC_INFO_REPLY, TSC_INFO_REPLY_FIELDS, TSC_INFO_SIZE, tscScale } from "./TscInfoMessage.ts"
export { VLEK_BLOB, VLEK_BLOB_FIELDS, VLEK_BLOB_SIZE, VLEK_STICKS_SIZE, wrapVlek } from "./VlekBlob.ts"
export { VMRK_REPLY_SIZE, VMRK_REQUEST, VMRK_REQUEST_FIELDS, VMRK_REQUEST_SIZE } from "./VmrkMessage.ts"
export { XSAVE_CPUID } from "./XsaveCpuid.ts"
