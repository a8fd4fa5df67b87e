import { MIGRATION_ROLE } from "@vmpl-lab/guest"
import { PERMISSION } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Migration, migrationService, type Protocol, RECORD, type SvsmState, sealRecord } from "@vmpl-lab/svsm"
import { ALL, type Cpu, GFN, isMoving, P, type Race } from "./raceCalls.ts"

const KEY = new Uint8Array(32).fill(3)

/** The service, for a race that needs it. */
export const raceMigration = (
  race: Race
): { readonly protocols: ReadonlyArray<Protocol>; readonly migration: Migration | null } => {
  if (!isMoving(race)) return { protocols: [], migration: null }
  const { protocol, migration } = migrationService({
    newPrivateKey: () => new Uint8Array(48).fill(1),
    genuine: () => null
  })
  return { protocols: [protocol], migration }
}

/** A record for P, as the other side would send it. */
export const recordForP = (): Uint8Array => {
  const payload = new Uint8Array(PAGE_SIZE).fill(0x11)
  return sealRecord(KEY, 0, { kind: RECORD.PAGE, rights: ALL << 8, gpa: P, payload })
}

/** Rights to P without that to write. */
export const READ_ONLY = ALL & ~PERMISSION.WRITE

/** As far as the call of an agent presumes, with P the page that is to go. */
export const prepareMigration = (state: SvsmState, migration: Migration, { calls, start }: Race): void => {
  const agent = ([0, 1] as ReadonlyArray<Cpu>).find((cpu) => calls[cpu] !== "fault at P" && isAgents(calls[cpu]))
  const isTarget = calls.includes("import")
  Object.assign(migration, {
    phase: isTarget ? "keyed" : start === "parked" ? "stopped" : "sending",
    role: isTarget ? MIGRATION_ROLE.TARGET : MIGRATION_ROLE.SOURCE,
    agent: agent === undefined ? null : state.registry[agent]!,
    key: KEY
  })
  if (!isTarget) migration.pending.add(GFN.P)
  if (start === "guarded") migration.guarded.set(GFN.P, ALL << 8)
  const parked = state.registry.find(({ vmsaGpa }) => vmsaGpa === P)
  if (start !== "parked" || parked === undefined) return
  migration.parked.add(parked)
  state.served[parked.apicId]![parked.vmpl] = undefined
  state.running[parked.apicId] = undefined
}

const isAgents = (call: string): boolean => ["export", "import", "resume"].includes(call)

/** What the service knows, as far as two ways of getting there can differ. */
export const migrationDigest = (migration: Migration): string => {
  const { phase, sequence, pending, guarded, giving, sealing, parked, quiet } = migration
  const sets = [pending, giving, sealing, quiet].map((set) => [...set].join())
  const vmsas = [...parked].map(({ vmsaGpa }) => vmsaGpa).join()
  return [phase, sequence, ...sets, [...guarded].join(), vmsas].join(";")
}
