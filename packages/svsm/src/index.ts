export * from "./Behaviour.ts"
export * from "./Boot.ts"
export * from "./CoconutPanic.ts"
export * from "./EventsBelow.ts"
export * from "./FirmwareMessages.ts"
export * from "./GuestAddress.ts"
export * from "./GuestApic.ts"
export * from "./GuestFeatures.ts"
export * from "./GuestInjection.ts"
export * from "./Heap.ts"
export * from "./Image.ts"
export * from "./Interrupts.ts"
export * from "./Lock.ts"
export * from "./Parameters.ts"
export * from "./protocols/Apic.ts"
export * from "./protocols/ApicIcr.ts"
export * from "./protocols/Attestation.ts"
export * from "./protocols/Core.ts"
export * from "./protocols/Protocol.ts"
export * from "./protocols/Protocols.ts"
export * from "./protocols/Request.ts"
export * from "./protocols/UefiMm.ts"
export * from "./protocols/Vtpm.ts"
export * from "./RequestLoop.ts"
export * from "./ServiceManifest.ts"
export * from "./State.ts"
export { GUEST_BUFFER_COST } from "./services/GuestBuffer.ts"
export * from "./services/HandledService.ts"
export * from "./services/LevelOne.ts"
export * from "./services/MemoryAcceptance.ts"
export {
  MIGRATION_COST,
  type Migration,
  type MigrationPhase,
  newMigration,
  PAGE_COST
} from "./services/migration/Migration.ts"
export * from "./services/migration/MigrationService.ts"
export { movedPages } from "./services/migration/MovedPages.ts"
export { type MigrationRecord, openRecord, RECORD, recordSize, sealRecord } from "./services/migration/SealedRecord.ts"
export {
  agree,
  boundTo,
  decodeHello,
  encodeHello,
  type PeerReport,
  publicKeyOf,
  type TransportOptions
} from "./services/migration/TransportKey.ts"
export * from "./services/SecretStore.ts"
export * from "./services/ServiceAccess.ts"
export * from "./services/uefi/index.ts"
