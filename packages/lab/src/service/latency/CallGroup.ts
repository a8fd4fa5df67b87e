import { type ClientJob, CORE_CALL, PROTOCOL, pvalidateList } from "@vmpl-lab/guest"
import type { Strategy } from "@vmpl-lab/hv-strategies"
import type { Profile } from "@vmpl-lab/sim"
import type { Protocol, ServeCall, SvsmState } from "@vmpl-lab/svsm"
import type * as Effect from "effect/Effect"
import type { RunFailed } from "../../RunFailed.ts"
import type { ClientLevels } from "../../tpm/ClientWork.ts"
import type { OutsideAnswerer } from "../../tpm/GuestMachine.ts"
import type { CallTime } from "../RunService.ts"

/** Guest memory that the calls of the table may use; nobody else does. */
export interface LatencyPlace {
  /** Two pages in a row that the guest has had validated. */
  readonly buffers: ReadonlyArray<number>
  /** A validated page that no vCPU uses as its VMSA. */
  readonly vmsaPage: number
  /** Two validated pages: the calling area is in one of them, in the first one at the beginning. */
  readonly callingAreas: readonly [number, number]
  /** 1 MiB of RAM that is not validated yet, in pages of 4 KiB. */
  readonly pages: number
  /** A 2 MiB region that is not validated yet, and that the host backs with one page of 2 MiB. */
  readonly region: number
  /** A 2 MiB region that is not validated yet, of which the host backs each 4 KiB page. */
  readonly smallRegion: number
  /** SEV_FEATURES of the guest's level. */
  readonly sevFeatures: number
}

/** One call of the table; without a name it is made, but not in the table. */
export interface LatencyCall {
  readonly name: string
  /** @param round counts from 0 */
  readonly job: (round: number) => ClientJob
  /** Virtual ns of its service time that are given as one number, such as a TPM's work. */
  readonly givenNs?: number
}

/**
 * Calls of one protocol, in an order in which the later ones undo what the earlier ones did: a round of all of them can
 * be made again and again.
 */
export interface CallGroup {
  readonly protocol: string
  /** The SVSM has the guest's APIC: the guest's level runs under alternate injection, VMPL0 under restricted. */
  readonly alternateInjection?: boolean
  /** From where it is called, and where it is served; VMPL2 and VMPL0 when left out. */
  readonly levels?: ClientLevels
  /** What a program at VMPL1 serves, by protocol, where services are there. */
  readonly levelCalls?: ReadonlyMap<number, ServeCall>
  /** What the SVSM serves beside its own protocols, and who answers its questions to the outside. */
  readonly services?: ReadonlyArray<Protocol>
  readonly answerers?: ReadonlyArray<OutsideAnswerer>
  /** Before the guest boots. */
  readonly prepare?: (svsm: SvsmState) => void
  /** Once, before the first round. */
  readonly setUp?: (place: LatencyPlace) => ReadonlyArray<ClientJob>
  readonly calls: (place: LatencyPlace) => ReadonlyArray<LatencyCall>
}

/** One call of the table with all its samples. */
export interface MeasuredCall {
  readonly name: string
  readonly outcomes: ReadonlyArray<CallTime>
  /** As of a `LatencyCall`. */
  readonly givenNs: number
}

/** Calls of one protocol that no client can make one by one: the group runs what makes them, and tells of each. */
export interface MeasuredGroup {
  readonly protocol: string
  /** Under one strategy. @returns in the order of the table, the same calls under each */
  readonly measure: (how: MeasureOptions) => Effect.Effect<ReadonlyArray<MeasuredCall>, RunFailed>
}

/** What a group measures under; `calls` is the most samples of a call. */
export interface MeasureOptions {
  readonly strategy: Strategy
  readonly profile: Profile
  readonly seed: number
  readonly calls: number
}

type Call = Extract<ClientJob, { kind: "call" }>

/** A job of one call. */
export const callJob = (
  protocol: number,
  call: number,
  registers: Call["registers"],
  writes: Call["writes"] = []
): ClientJob => ({ kind: "call", protocol, call, registers, writes, reads: [] })

/** PVALIDATE of some entries, with the list in a page of the guest's. */
export const pvalidateJob = (list: number, entries: Parameters<typeof pvalidateList>[0]): ClientJob =>
  callJob(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: list }, [{ gpa: list, bytes: pvalidateList(entries) }])

/** Entries for so many pages in a row. */
export const pagesFrom = (gpa: number, count: number, validate: boolean) =>
  Array.from({ length: count }, (_, page) => ({ gpa: gpa + page * 0x1000, validate }))
