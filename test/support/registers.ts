import { VMSA } from "@vmpl-lab/sev-es"
import { type Program, readRegister, writeRegister } from "@vmpl-lab/vmpl"

/** Registers that an SVSM call does not carry: a switch must leave them alone. */
export const OTHERS = ["rbx", "rbp", "rsi", "rdi", "rsp", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const

/** Their values, upper half before lower half. */
export type Values = ReadonlyArray<number>

export const readAll = function* (): Program<Values> {
  const values: Array<number> = []
  for (const name of OTHERS) {
    const { lo, hi } = yield readRegister(VMSA[name])
    values.push(hi, lo)
  }
  return values
}

export const writeAll = function* (values: Values): Program {
  for (const [i, name] of OTHERS.entries()) yield writeRegister(VMSA[name], values[2 * i + 1]!, values[2 * i]!)
}
