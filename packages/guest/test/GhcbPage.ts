import { GHCB, REPLY, validByte, validMask } from "@vmpl-lab/sev-es"
import type { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"

/** Where the tests have their GHCB. */
export const GHCB_GPA = 0x2_0000

/** The hypervisor's side of a GHCB on a scripted machine. */
export type Half = readonly [lo: number, hi: number]

/** Quadwords of the save area by name; `cpl` is one byte of its own. */
const QUADWORDS = [
  "xss",
  "dr7",
  "rip",
  "rsp",
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
  "sw_exit_code",
  "sw_exit_info_1",
  "sw_exit_info_2",
  "sw_scratch",
  "xcr0"
] as const
export type FieldName = (typeof QUADWORDS)[number] | "cpl"

/** The fields that the guest has marked as valid. A bit that is no field's is shown as such. */
export const suppliedFields = (machine: ScriptedMachine, gpa = GHCB_GPA): { readonly [name: string]: Half } => {
  const names = new Map<number, FieldName>(QUADWORDS.map((name) => [GHCB[name] >> 3, name]))
  names.set(GHCB.cpl >> 3, "cpl")
  const fields: { [name: string]: Half } = {}
  for (let bit = 0; bit < 128; bit++) {
    const byte = machine.get(gpa + GHCB.valid_bitmap + (bit >> 3), 1, "shared")[0]
    if ((byte & (1 << (bit & 7))) === 0) continue
    const name = names.get(bit)
    if (name === undefined) fields[`bit ${bit}`] = [0, 0]
    else fields[name] = machine.get(gpa + GHCB[name], name === "cpl" ? 1 : 8, "shared")
  }
  return fields
}

export const put = (machine: ScriptedMachine, name: FieldName, [lo, hi]: Half, gpa = GHCB_GPA): void =>
  machine.set(gpa + GHCB[name], name === "cpl" ? 1 : 8, lo, hi, "shared")

/** Answers as a hypervisor that keeps to the protocol: clears the bitmap, then gives fields with their bits. */
export const reply = (
  machine: ScriptedMachine,
  fields: { readonly [name in FieldName]?: Half } = {},
  gpa = GHCB_GPA
): void => {
  machine.set(gpa + GHCB.valid_bitmap, 8, 0, 0, "shared")
  machine.set(gpa + GHCB.valid_bitmap + 8, 8, 0, 0, "shared")
  const all = { sw_exit_info_1: [REPLY.NO_ACTION, 0], sw_exit_info_2: [0, 0], ...fields }
  for (const [name, value] of Object.entries(all) as Array<[FieldName, Half]>) {
    put(machine, name, value, gpa)
    const at = gpa + validByte(GHCB[name])
    machine.set(at, 1, machine.get(at, 1, "shared")[0] | validMask(GHCB[name]), 0, "shared")
  }
}
