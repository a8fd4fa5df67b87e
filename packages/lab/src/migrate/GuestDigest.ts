import { createHash } from "node:crypto"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Migration, movedPages } from "@vmpl-lab/svsm"
import type { Machine } from "../Machine.ts"

/** A page of the guest's as its own key shows it: nobody in the simulation could look like this. */
const plaintext = ({ hardware, vmm }: Machine, gfn: number): Uint8Array => {
  const pfn = vmm.memory.privateFrameIfPresent(gfn)
  const { buffer, byteOffset } = hardware.memory.read(pfn, vmm.owner.asid)
  return new Uint8Array(buffer, byteOffset, PAGE_SIZE)
}

/** Rights of VMPL1 to VMPL3; those that a migration has taken for a while count as there. */
const rightsOf = ({ hardware, vmm }: Machine, { guarded }: Migration, gfn: number): string => {
  const taken = guarded.get(gfn)
  if (taken !== undefined) return [0, 8, 16].map((shift) => (taken >>> shift) & 0xff).join(",")
  return hardware.rmp.entry(vmm.memory.privateFrameIfPresent(gfn)).perms.slice(1).join(",")
}

/**
 * SHA-256 over the state of a guest that stands still: its memory in plaintext with each level's rights, calling areas
 * among it, and the VMSAs of all its vCPUs but the agent's. Hex.
 */
export const stateDigest = (machine: Machine, migration: Migration): string => {
  const hash = createHash("sha256")
  for (const gfn of movedPages(machine.svsm, migration)) {
    hash.update(`${gfn}:${rightsOf(machine, migration, gfn)};`)
    hash.update(plaintext(machine, gfn))
  }
  const vcpus = [...migration.parked].sort((a, b) => a.apicId - b.apicId)
  for (const { apicId, vmpl, vmsaGpa, caGpa } of vcpus) {
    hash.update(`${apicId}.${vmpl}@${vmsaGpa},${caGpa};`)
    hash.update(plaintext(machine, vmsaGpa / PAGE_SIZE))
  }
  return hash.digest("hex")
}

/** SHA-256 over some of the guest's pages, hex. */
export const pagesDigest = (machine: Machine, gpa: number, pages: number): string => {
  const hash = createHash("sha256")
  for (let page = 0; page < pages; page++) hash.update(plaintext(machine, gpa / PAGE_SIZE + page))
  return hash.digest("hex")
}
