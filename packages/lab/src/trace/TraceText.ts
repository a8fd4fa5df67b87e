import { type PageSize, PERMISSION } from "@vmpl-lab/rmp"
import { ACCESS_KINDS, type Action, type GuestAt, type TraceConfig } from "./Action.ts"

/** The five permissions of a mask, in the order of its bits. */
export interface Perms {
  readonly read: boolean
  readonly write: boolean
  readonly executeUser: boolean
  readonly executeSupervisor: boolean
  readonly shadowStack: boolean
}

export type SizeText = "4K" | "2M"

/** Address of a frame: lower-case hexadecimal without leading zeros. */
export const addressText = (frame: number): string => `0x${(frame * 4096).toString(16)}`

export const sizeText = (size: PageSize): SizeText => (size === 0 ? "4K" : "2M")

export const permsOf = (mask: number): Perms => ({
  read: (mask & PERMISSION.READ) !== 0,
  write: (mask & PERMISSION.WRITE) !== 0,
  executeUser: (mask & PERMISSION.EXECUTE_USER) !== 0,
  executeSupervisor: (mask & PERMISSION.EXECUTE_SUPERVISOR) !== 0,
  shadowStack: (mask & PERMISSION.SHADOW_STACK) !== 0
})

/** `npt` is left out where the GPA is not mapped: JSON.stringify drops a key whose value is undefined. */
const guestKeys = ({ asid, vmpl, gfn, npt }: GuestAt) => ({
  asid,
  vmpl,
  gpa: addressText(gfn),
  npt: npt === null ? undefined : { spa: addressText(npt.pfn), size: sizeText(npt.size) }
})

/** An action with the keys of its line, in the order of the format's table. */
const jsonOf = (action: Action): object => {
  const { op } = action
  switch (op) {
    case "rmpupdate": {
      const { pfn, assigned, size, immutable, gfn, asid } = action
      return { op, spa: addressText(pfn), assigned, size: sizeText(size), immutable, gpa: addressText(gfn), asid }
    }
    case "pvalidate":
      return { op, ...guestKeys(action), size: sizeText(action.size), validate: action.validate }
    case "rmpadjust": {
      const { size, targetVmpl, mask, vmsa } = action
      return { op, ...guestKeys(action), size: sizeText(size), targetVmpl, perms: permsOf(mask), vmsa }
    }
    case "rmpquery":
      return { op, ...guestKeys(action), targetVmpl: action.targetVmpl }
    case "access": {
      const head = { op, by: action.by, kind: ACCESS_KINDS[action.kind] }
      if (action.by !== "guest") return { ...head, spa: addressText(action.pfn), size: sizeText(action.size) }
      const { asid, vmpl, ...address } = guestKeys(action)
      return { ...head, asid, vmpl, cpl: action.cpl, cbit: action.cbit, ...address }
    }
    case "vmrun":
      return { op, asid: action.asid, gpa: addressText(action.gfn), spa: addressText(action.pfn), snp: action.snp }
    case "firmware": {
      const head = { op, command: action.command, spa: addressText(action.pfn) }
      if ("contextPfn" in action) return { ...head, context: addressText(action.contextPfn) }
      if ("targetPfn" in action)
        return { ...head, target: addressText(action.targetPfn), metadata: addressText(action.metadataPfn) }
      if (!("masks" in action)) return head
      const { pageType, asid, size, masks } = action
      const [perms1, perms2, perms3] = masks.map(permsOf)
      return { ...head, pageType, asid, size: sizeText(size), perms1, perms2, perms3 }
    }
    case "digest":
      return { op }
    default:
      return { op, spa: addressText(action.pfn) }
  }
}

/** The line of an action, without its line feed. `parseAction` reads it back. */
export const actionText = (action: Action): string => JSON.stringify(jsonOf(action))

/** The first line of a trace, without its line feed. `parseConfig` reads it back. */
export const configText = ({ pages, basePfn, vmpls, switches }: TraceConfig): string =>
  JSON.stringify({ config: { pages, base: addressText(basePfn), vmpls, switches } })
