import { ASID_MAX, type GuestAt } from "./Action.ts"
import { Fields } from "./Fields.ts"
import { guestOf } from "./ParseAction.ts"

/** Who touches memory: the host by system physical address, or a guest. */
export type MemoryAccessor =
  | { readonly by: "host"; readonly pfn: number }
  | (GuestAt & { readonly by: "guest"; readonly cpl: number; readonly cbit: boolean })

/**
 * Operations on the contents of memory, for traces that show more than the RMP does. `store` and `load` are of bytes at
 * the start of a page, `clear` is of a whole page. `save` keeps what the host sees of a page and `restore` stores that;
 * `write-back` is what a cache does with a line that the host had stored before: no check is made any more. `tlb-flush`
 * drops a guest's translations, through which all its accesses go. `erratum` has the processor report false RMP faults.
 */
export type MemoryAction =
  | { readonly op: "store"; readonly accessor: MemoryAccessor; readonly data: Uint8Array }
  | { readonly op: "load"; readonly accessor: MemoryAccessor; readonly bytes: number }
  | { readonly op: "clear"; readonly accessor: MemoryAccessor }
  | { readonly op: "save" | "restore" | "write-back"; readonly pfn: number; readonly name: string }
  | { readonly op: "tlb-flush"; readonly asid: number }
  | { readonly op: "erratum"; readonly falseFaults: boolean }

export const MEMORY_OPS: ReadonlyArray<string> = [
  "store",
  "load",
  "clear",
  "save",
  "restore",
  "write-back",
  "tlb-flush",
  "erratum"
]

/** Most bytes that one line stores or loads. */
const BYTES_MAX = 64

const accessor = (fields: Fields, vmpls: number): MemoryAccessor => {
  if (fields.choice("by", ["host", "guest"]) === "host") return { by: "host", pfn: fields.frame("spa") }
  return { by: "guest", ...guestOf(fields, vmpls), cpl: fields.integer("cpl", 0, 3), cbit: fields.boolean("cbit") }
}

const parse = (fields: Fields, op: string, vmpls: number): MemoryAction => {
  switch (op) {
    case "store":
      return { op, accessor: accessor(fields, vmpls), data: fields.bytes("data", BYTES_MAX) }
    case "load":
      return { op, accessor: accessor(fields, vmpls), bytes: fields.integer("bytes", 1, BYTES_MAX) }
    case "clear":
      return { op, accessor: accessor(fields, vmpls) }
    case "tlb-flush":
      return { op, asid: fields.integer("asid", 1, ASID_MAX) }
    case "erratum":
      return { op, falseFaults: fields.boolean("falseFaults") }
    case "save":
    case "restore":
    case "write-back":
      return { op, pfn: fields.frame("spa"), name: fields.text("name") }
    default:
      throw new Error(`parseMemoryAction: ${op} is none of MEMORY_OPS`)
  }
}

/** A line as a memory operation; null when it is none. @throws LineInvalid */
export const parseMemoryAction = (value: unknown, vmpls: number): MemoryAction | null => {
  const op: unknown = typeof value === "object" && value !== null && "op" in value ? value.op : undefined
  if (typeof op !== "string" || !MEMORY_OPS.includes(op)) return null
  const fields = new Fields(value)
  fields.text("op")
  const action = parse(fields, op, vmpls)
  fields.end()
  return action
}
