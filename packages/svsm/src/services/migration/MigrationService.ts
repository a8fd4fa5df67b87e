import { MIGRATION_CALL, MIGRATION_PROTOCOL, MIGRATION_RESULT, MIGRATION_ROLE, SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE, toNumber } from "@vmpl-lab/sev-es"
import { OP, type Operation, type Program } from "@vmpl-lab/vmpl"
import type { Protocol } from "../../protocols/Protocol.ts"
import { type SvsmRequest, setRegister } from "../../protocols/Request.ts"
import type { SvsmState } from "../../State.ts"
import { exportPages, leftOver } from "./ExportPages.ts"
import { exportState } from "./ExportState.ts"
import { hello, peer, start } from "./Greet.ts"
import { importPages } from "./ImportPages.ts"
import { importState } from "./ImportState.ts"
import { type Migration, type MigrationPhase, newMigration } from "./Migration.ts"
import { isMoved } from "./MovedPages.ts"
import { park, resume, stop } from "./Park.ts"
import { type SharedBuffer, takeShared, withShared } from "./SharedBuffer.ts"
import type { TransportOptions } from "./TransportKey.ts"
import { serveWriteFault } from "./WriteRight.ts"

/** The service and, for whoever watches a machine from outside, what it knows. */
export interface MigrationService {
  readonly protocol: Protocol
  readonly migration: Migration
}

/** When each call is for; PARK is for every vCPU but the agent. */
const PHASES: { readonly [call: number]: ReadonlyArray<MigrationPhase> } = {
  [MIGRATION_CALL.HELLO]: ["none", "greeted", "keyed"],
  [MIGRATION_CALL.PEER]: ["greeted"],
  [MIGRATION_CALL.START]: ["keyed"],
  [MIGRATION_CALL.MARK]: ["sending", "stopped"],
  [MIGRATION_CALL.EXPORT]: ["sending", "stopped"],
  [MIGRATION_CALL.PARK]: ["sending"],
  [MIGRATION_CALL.STOP]: ["sending"],
  [MIGRATION_CALL.EXPORT_STATE]: ["stopped"],
  [MIGRATION_CALL.IMPORT]: ["keyed"],
  [MIGRATION_CALL.IMPORT_STATE]: ["keyed"],
  [MIGRATION_CALL.RESUME]: ["sending", "stopped", "arrived"]
}

/**
 * Whose calls those are that a key allows. Only the source seals: were the target to, both would use the same numbers
 * under one key, which AES-GCM does not survive.
 */
const ROLES: { readonly [call: number]: Migration["role"] } = {
  [MIGRATION_CALL.START]: MIGRATION_ROLE.SOURCE,
  [MIGRATION_CALL.IMPORT]: MIGRATION_ROLE.TARGET,
  [MIGRATION_CALL.IMPORT_STATE]: MIGRATION_ROLE.TARGET
}

/**
 * Moves the guest to another machine while it runs: a prototype. Memory goes page by page, sealed for the SVSM of the
 * other side; pages that the guest writes meanwhile are found by their missing write right, or by the host.
 */
export const migrationService = (options: TransportOptions): MigrationService => {
  const migration = newMigration()
  const protocol: Protocol = {
    number: MIGRATION_PROTOCOL,
    versions: () => ({ MIN: 1, MAX: 1 }),
    serve: (state, request) => {
      const phases = PHASES[request.call]
      if (phases === undefined) return SVSM_RESULT.UNSUPPORTED_CALL
      const isRole = (ROLES[request.call] ?? migration.role) === migration.role
      if (!phases.includes(migration.phase) || !isRole || !isCaller(state, migration, request))
        return MIGRATION_RESULT.WRONG_PHASE
      return quietly(migration, request.caller.apicId, serve(state, migration, options, request))
    },
    fault: (state, faulted) => quietly(migration, faulted.apicId, serveWriteFault(state, migration, faulted)),
    completed: (state, apicId, operation) => {
      if (WATCHED.includes(migration.phase) && !migration.quiet.has(apicId)) noteOwn(state, migration, operation)
    }
  }
  return { protocol, migration }
}

/** The agent's calls are the agent's alone, and the agent is of the guest's own level: a lesser one may not move it. */
const isCaller = (state: SvsmState, { agent }: Migration, { call, caller, vmpl }: SvsmRequest): boolean => {
  if (call === MIGRATION_CALL.PARK) return caller !== agent
  return agent === null ? vmpl <= state.parameters.guestVmpl : caller === agent
}

function* quietly<R>({ quiet }: Migration, apicId: number, program: Program<R> | R): Program<R> {
  if (typeof program !== "object" || program === null || !("next" in program)) return program
  quiet.add(apicId)
  try {
    return yield* program
  } finally {
    quiet.delete(apicId)
  }
}

const serve = (
  state: SvsmState,
  migration: Migration,
  options: TransportOptions,
  request: SvsmRequest
): Program<number> | number => {
  switch (request.call) {
    case MIGRATION_CALL.HELLO:
      return withShared(state, request, (buffer) => hello(state, migration, options, request, buffer))
    case MIGRATION_CALL.PEER:
      return withShared(state, request, (buffer) => peer(migration, options, buffer))
    case MIGRATION_CALL.START:
      return start(state, migration, request)
    case MIGRATION_CALL.MARK:
      return withShared(state, request, (buffer) => mark(state, migration, request, buffer))
    case MIGRATION_CALL.EXPORT:
      return withShared(state, request, (buffer) => exportPages(state, migration, request, buffer))
    case MIGRATION_CALL.PARK:
      return park(state, migration, request)
    case MIGRATION_CALL.STOP:
      return stop(state, migration)
    case MIGRATION_CALL.EXPORT_STATE:
      return withShared(state, request, (buffer) => exportState(state, migration, request, buffer))
    case MIGRATION_CALL.IMPORT:
      return withShared(state, request, (buffer) => importPages(state, migration, request, buffer))
    case MIGRATION_CALL.IMPORT_STATE:
      return withShared(state, request, (buffer) => importState(state, migration, buffer))
    default:
      return resume(state, migration, request)
  }
}

/** MARK: what the host says is dirty. It may say too much, which costs time, and what it leaves out is not sent. */
function* mark(state: SvsmState, migration: Migration, request: SvsmRequest, buffer: SharedBuffer): Program<number> {
  if (buffer.size % 8 !== 0) return SVSM_RESULT.INVALID_ADDRESS
  const list = new DataView((yield* takeShared(buffer)).buffer)
  for (let at = 0; at < buffer.size; at += 8) {
    const gfn = toNumber(list.getUint32(at, true), list.getUint32(at + 4, true))
    if (isMoved(state, migration, gfn)) migration.pending.add(gfn)
  }
  setRegister(request, "r8", leftOver(state, migration))
  return SVSM_RESULT.SUCCESS
}

/** While pages may have gone that the SVSM changes: the agent runs, and calls, after the stop too. */
const WATCHED: ReadonlyArray<MigrationPhase> = ["sending", "stopped", "resuming"]
const PAGES_2M = 512

/** Pages whose contents or rights an operation has changed, as the first and how many; null for all others. */
const changedBy = ({ op, address, hi, size, cbit }: Operation): readonly [gfn: number, pages: number] | null => {
  const gfn = Math.floor(address / PAGE_SIZE)
  switch (op) {
    case OP.WRITE:
    case OP.WRITE_BYTES:
    case OP.XCHG8:
      return cbit ? [gfn, 1] : null
    case OP.ZERO_PAGE:
      return [gfn, size / PAGE_SIZE]
    case OP.PVALIDATE:
    case OP.RMPADJUST:
      return [gfn, hi === 1 ? PAGES_2M : 1]
    default:
      return null
  }
}

/**
 * What the SVSM itself changes of the guest never faults: RMPADJUST does not bind VMPL0. Its page tables' Dirty bits
 * would tell of its stores; rights that it gives for another reason replace those that were noted.
 */
const noteOwn = (state: SvsmState, migration: Migration, operation: Operation): void => {
  const changed = changedBy(operation)
  if (changed === null) return
  const [first, pages] = changed
  for (let gfn = first; gfn < first + pages; gfn++) {
    if (!isMoved(state, migration, gfn)) continue
    // What is validated a second time keeps the rights that it has, which are not all.
    const rescinds = operation.op === OP.PVALIDATE && operation.lo === 0
    // A page that is watched has an entry of its own, to which an instruction for 2 MiB does nothing.
    if (pages === 1 && (operation.op === OP.RMPADJUST || rescinds)) migration.guarded.delete(gfn)
    migration.pending.add(gfn)
  }
}
