import {
  ACCESS_KINDS,
  type AccessKind,
  type Action,
  ASID_MAX,
  type GuestAt,
  MOVE_COMMANDS,
  type NestedMapping,
  type Op,
  PAGE_COMMANDS
} from "./Action.ts"
import { Fields } from "./Fields.ts"

const COMMANDS = ["LAUNCH_UPDATE", "MD_INIT", ...MOVE_COMMANDS, ...PAGE_COMMANDS] as const

const kind = (fields: Fields): AccessKind => ACCESS_KINDS.indexOf(fields.choice("kind", ACCESS_KINDS)) as AccessKind

/** `npt` may be left out: then the GPA is not mapped. */
const npt = (fields: Fields): NestedMapping | null => {
  const mapping = fields.optionalObject("npt", 'an object of spa and size such as {"spa":"0x1000","size":"4K"}')
  if (mapping === undefined) return null
  const size = mapping.size("size")
  const pfn = size === 1 ? mapping.largeFrame("spa") : mapping.frame("spa")
  mapping.end()
  return { pfn, size }
}

/** The keys of a guest's page and its nested mapping. */
export const guestOf = (fields: Fields, vmpls: number): GuestAt => ({
  asid: fields.integer("asid", 1, ASID_MAX),
  vmpl: fields.integer("vmpl", 0, vmpls - 1),
  gfn: fields.frame("gpa"),
  npt: npt(fields)
})

const access = (fields: Fields, vmpls: number): Action => {
  const by = fields.choice("by", ["host", "non-snp", "guest"])
  const op = "access"
  if (by !== "guest") return { op, by, kind: kind(fields), pfn: fields.frame("spa"), size: fields.size("size") }
  const at = guestOf(fields, vmpls)
  return { op, by, kind: kind(fields), ...at, cpl: fields.integer("cpl", 0, 3), cbit: fields.boolean("cbit") }
}

const firmware = (fields: Fields): Action => {
  const command = fields.choice("command", COMMANDS)
  const op = "firmware"
  const pfn = fields.frame("spa")
  switch (command) {
    case "LAUNCH_UPDATE":
      return {
        op,
        command,
        pfn,
        pageType: fields.integer("pageType", 1, 6),
        asid: fields.integer("asid", 1, ASID_MAX),
        size: fields.size("size"),
        masks: [fields.mask("perms1"), fields.mask("perms2"), fields.mask("perms3")]
      }
    case "MD_INIT":
      return { op, command, pfn, contextPfn: fields.frame("context") }
    case "PAGE_MOVE":
    case "SWAP_OUT":
    case "SWAP_IN":
      return { op, command, pfn, targetPfn: fields.frame("target"), metadataPfn: fields.frame("metadata") }
    default:
      return { op, command, pfn }
  }
}

type Build = (fields: Fields, vmpls: number) => Action

const BUILD: { readonly [K in Op]: Build } = {
  rmpupdate: (fields) => ({
    op: "rmpupdate",
    pfn: fields.frame("spa"),
    assigned: fields.boolean("assigned"),
    size: fields.size("size"),
    immutable: fields.boolean("immutable"),
    gfn: fields.frame("gpa"),
    asid: fields.integer("asid", 0, ASID_MAX)
  }),
  psmash: (fields) => ({ op: "psmash", pfn: fields.frame("spa") }),
  rmpread: (fields) => ({ op: "rmpread", pfn: fields.frame("spa") }),
  pvalidate: (fields, vmpls) => ({
    op: "pvalidate",
    ...guestOf(fields, vmpls),
    size: fields.size("size"),
    validate: fields.boolean("validate")
  }),
  // A target that the machine does not have is a FAIL_INPUT of the instruction: RDX[7:0] can hold any byte.
  rmpadjust: (fields, vmpls) => ({
    op: "rmpadjust",
    ...guestOf(fields, vmpls),
    size: fields.size("size"),
    targetVmpl: fields.integer("targetVmpl", 0, 255),
    mask: fields.mask("perms"),
    vmsa: fields.boolean("vmsa")
  }),
  rmpquery: (fields, vmpls) => ({
    op: "rmpquery",
    ...guestOf(fields, vmpls),
    targetVmpl: fields.integer("targetVmpl", 0, 255)
  }),
  access,
  vmrun: (fields) => ({
    op: "vmrun",
    asid: fields.integer("asid", 1, ASID_MAX),
    gfn: fields.frame("gpa"),
    pfn: fields.frame("spa"),
    snp: fields.boolean("snp")
  }),
  vmexit: (fields) => ({ op: "vmexit", pfn: fields.frame("spa") }),
  firmware,
  entry: (fields) => ({ op: "entry", pfn: fields.frame("spa") }),
  digest: () => ({ op: "digest" })
}

const OPS = Object.keys(BUILD) as ReadonlyArray<Op>

/**
 * One JSON value (a line of a trace after the first) as an action. `vmpls` is that of the trace's configuration.
 * @throws LineInvalid for anything but an object with exactly the keys of its operation, each in range.
 */
export const parseAction = (value: unknown, vmpls: number): Action => {
  const fields = new Fields(value)
  const action = BUILD[fields.choice("op", OPS)](fields, vmpls)
  fields.end()
  return action
}
