import type { MIGRATION_ROLE } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { GuestVmsa } from "../../State.ts"
import { GUEST_BUFFER_COST } from "../GuestBuffer.ts"
import type { TransportKey } from "./TransportKey.ts"

/**
 * What migration costs beyond the SVSM's instructions, virtual ns. All are assumed: AES-256-GCM and SHA-256 with the
 * instructions that processors have for them, at 3 and 1.7 GB/s of one core; a key agreement and a report's check on
 * P-384 in software.
 */
export const MIGRATION_COST = {
  SEAL_KIB: 340,
  HASH_KIB: 600,
  KEY_AGREEMENT: 1_500_000,
  CHECK_REPORT: 3_000_000
} as const

const PAGE_KIB = PAGE_SIZE / 1024

/** Virtual ns for a page: it is mapped, and then sealed or opened, hashed, or both. */
export const PAGE_COST = {
  SEAL: GUEST_BUFFER_COST.MAP_PAGE + PAGE_KIB * MIGRATION_COST.SEAL_KIB,
  HASH: GUEST_BUFFER_COST.MAP_PAGE + PAGE_KIB * MIGRATION_COST.HASH_KIB,
  BOTH: GUEST_BUFFER_COST.MAP_PAGE + PAGE_KIB * (MIGRATION_COST.SEAL_KIB + MIGRATION_COST.HASH_KIB)
} as const

/**
 * How far a migration is. Source: none, greeted, keyed, sending, stopped, gone; or resuming and keyed again. Target: none,
 * greeted, keyed, arrived, resuming, none again; refused where the memory that came is not what was sent.
 */
export type MigrationPhase =
  | "none"
  | "greeted"
  | "keyed"
  | "sending"
  | "stopped"
  | "gone"
  | "arrived"
  | "resuming"
  | "refused"

/** One page as it was sent or has arrived: SHA-256 of its contents, and the rights of VMPL1 to VMPL3, a byte each. */
export interface PageVersion {
  readonly digest: Uint8Array
  readonly rights: number
}

/** The SVSM's private data of a migration. */
export interface Migration {
  phase: MigrationPhase
  role: (typeof MIGRATION_ROLE)[keyof typeof MIGRATION_ROLE]
  /** The vCPU that stands between VMM and SVSM; null before HELLO. */
  agent: GuestVmsa | null
  /** The agent's own pages, which stay behind. */
  own: { readonly gpa: number; readonly size: number }
  /** This side's offer with its private key, which is forgotten once there is a key that came of both. */
  hello: Uint8Array
  privateKey: Uint8Array
  key: TransportKey | null
  /** Number of the next record. */
  sequence: number
  hostTracks: boolean
  rehash: boolean
  /** GFNs that have to be sent, or sent again, oldest first. */
  readonly pending: Set<number>
  /** GFNs whose write right was taken from the guest's levels, with the rights as they were. */
  readonly guarded: Map<number, number>
  /** GFNs to which the right is being given back. */
  readonly giving: Set<number>
  /** GFNs that are being sealed. */
  readonly sealing: Set<number>
  /** CPUs whose operations are the migration's own at this moment, by APIC ID: they dirty nothing. */
  readonly quiet: Set<number>
  /** Latest version of each page that was sent, or that has arrived, by GFN. */
  readonly versions: Map<number, PageVersion>
  /** VMSAs that do not run, in the order in which they parked or arrived. */
  readonly parked: Set<GuestVmsa>
  /** VMSAs whose PARK has begun. */
  readonly parking: Set<GuestVmsa>
  /** Write faults of the guest that were served. */
  faults: number
}

export const newMigration = (): Migration => ({
  phase: "none",
  role: 0,
  agent: null,
  own: { gpa: 0, size: 0 },
  hello: new Uint8Array(0),
  privateKey: new Uint8Array(0),
  key: null,
  sequence: 0,
  hostTracks: false,
  rehash: false,
  pending: new Set(),
  guarded: new Map(),
  giving: new Set(),
  sealing: new Set(),
  quiet: new Set(),
  versions: new Map(),
  parked: new Set(),
  parking: new Set(),
  faults: 0
})
