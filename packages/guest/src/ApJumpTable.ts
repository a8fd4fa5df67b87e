// @ghcb 0x80000005
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, read, write } from "@vmpl-lab/vmpl"
import type { Ghcb } from "./Ghcb.ts"
import { type Outcome, vmmError } from "./ghcb/Exchange.ts"
import { getApJumpTable } from "./ghcb/Processors.ts"

/** Real-mode address at which a woken AP goes on. */
export interface ApEntry {
  readonly ip: number
  readonly cs: number
}

/** The operating system's form of the AP jump table. @spec Linux sev_es_setup_ap_jump_table */
export const JUMP_TABLE = { ip: 0, cs: 2 } as const

/** Writes the entry into the table, a private page. */
export function* writeApJumpTable(gpa: number, { ip, cs }: ApEntry): Program {
  yield write(gpa + JUMP_TABLE.ip, 2, ip)
  yield write(gpa + JUMP_TABLE.cs, 2, cs)
}

/** Where a woken AP goes on. */
export function* readApJumpTable(gpa: number): Program<ApEntry> {
  const ip = (yield read(gpa + JUMP_TABLE.ip, 2)).lo
  const cs = (yield read(gpa + JUMP_TABLE.cs, 2)).lo
  return { ip, cs }
}

/**
 * Has all APs go on at the entry: finds the table that the firmware told the hypervisor of, and writes it. The page is
 * the guest's own only if it says so itself.
 * @param isOwn whether a page is one that firmware reserved, for the hypervisor may name any
 * @returns false when there is no table: the guest has one vCPU
 */
export function* prepareAps(ghcb: Ghcb, entry: ApEntry, isOwn: (gpa: number) => boolean): Program<Outcome<boolean>> {
  const reply = yield* getApJumpTable(ghcb)
  if (!reply.ok) return reply
  const gpa = reply.value
  if (gpa === null) return { ok: true, value: false }
  if (gpa % PAGE_SIZE !== 0 || !isOwn(gpa)) return vmmError
  yield* writeApJumpTable(gpa, entry)
  return { ok: true, value: true }
}
