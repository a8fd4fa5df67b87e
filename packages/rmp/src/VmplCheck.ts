// @section 3.2
import { FAULT, NPF_VMPL } from "./Fault.ts"
import { ACCESS, ACCESS_KIND_MASK, PERMISSION } from "./Permission.ts"
import type { Switches } from "./Switches.ts"

const MAY_READ_WRITE = PERMISSION.READ | PERMISSION.WRITE

/**
 * Whether a VMPL's mask allows an access.
 * @spec APM2 15.36.7 table 15-36
 * @spec-silent U14: Write without Read is an illegal setting, under which no write passes
 */
const isPermitted = (switches: Switches, mask: number, kind: number, cpl: number): boolean => {
  switch (kind & ACCESS_KIND_MASK) {
    case ACCESS.READ:
      if ((mask & PERMISSION.READ) !== 0) return true
      return (mask & PERMISSION.WRITE) !== 0 && switches.U14 === "alternative"
    case ACCESS.PAGE_TABLE_READ:
      return (mask & PERMISSION.READ) !== 0
    case ACCESS.FETCH:
      return (mask & (cpl === 3 ? PERMISSION.EXECUTE_USER : PERMISSION.EXECUTE_SUPERVISOR)) !== 0
    case ACCESS.SHADOW_STACK:
      if ((kind & ACCESS.VMPL_SSS) !== 0) return (mask & PERMISSION.SHADOW_STACK) !== 0
  }
  return (mask & MAY_READ_WRITE) === MAY_READ_WRITE
}

const verdict = (switches: Switches, mask: number, kind: number, cpl: number): number => {
  if (isPermitted(switches, mask, kind, cpl)) return FAULT.NONE
  const shown = (kind & ACCESS.VMPL_SSS) !== 0 && (mask & PERMISSION.SHADOW_STACK) !== 0
  return shown ? NPF_VMPL | FAULT.SSS : NPF_VMPL
}

/**
 * The VMPL check for every kind of access and every mask, FAULT.NONE or a fault: at `kind << 9 | user << 8 | mask`, with
 * `user` 1 at CPL 3. A look-up takes no branch that a processor could guess wrongly. Machines share the table: nobody
 * writes to it.
 */
export const vmplVerdicts = (switches: Switches): Int32Array => {
  // Of the switches only U14 has a part in it.
  let table = tables.get(switches.U14)
  if (table === undefined) {
    table = Int32Array.from({ length: 16 << 9 }, (_, at) =>
      verdict(switches, at & 0xff, at >>> 9, (at & 0x100) === 0 ? 0 : 3)
    )
    tables.set(switches.U14, table)
  }
  return table
}

const tables = new Map<Switches["U14"], Int32Array>()
