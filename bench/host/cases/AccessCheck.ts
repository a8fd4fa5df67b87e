/**
 * RMP access check: the simulator's (rows in one Int32Array, frame number as index) against the same decisions over a
 * Map and over an array of objects. All three get the same accesses and must give the same answers. One observation is
 * one process with one of them: `AccessCheck.ts typed|map|objects [--quick]`.
 */
import { performance } from "node:perf_hooks"
import { ACCESS, FAULT, PAGE_4K, PERMISSION, Rmp } from "@vmpl-lab/rmp"
import { RandomStream } from "@vmpl-lab/sim"

/** 256 MiB, as the simulated host has. */
const PAGES = 0x1_0000
const ACCESSES = 0x1_0000
const GUEST_ASID = 1
const OTHER_ASID = 2
const VMPLS = 4
const KINDS = [ACCESS.READ, ACCESS.WRITE, ACCESS.FETCH] as const
const MASKS = [PERMISSION.READ, PERMISSION.READ | PERMISSION.WRITE, PERMISSION.ALL]

/** What the plain tables keep of an RMP entry. */
interface Entry {
  readonly assigned: boolean
  readonly large: boolean
  readonly immutable: boolean
  readonly validated: boolean
  readonly asid: number
  readonly gfn: number
  readonly masks: ReadonlyArray<number>
}

/** Frames 0 to PAGES - 1 at the same guest frames: mostly the guest's, some another's, not validated or unassigned. */
const fill = (): Rmp => {
  const rmp = new Rmp({ pages: PAGES })
  const random = new RandomStream(1, "bench pages")
  for (let pfn = 0; pfn < PAGES; pfn++) {
    const draw = random.int(0, 99)
    if (draw < 2) continue
    const asid = draw < 4 ? OTHER_ASID : GUEST_ASID
    rmp.rmpupdate(pfn, true, PAGE_4K, false, pfn, asid)
    if (draw < 6) continue
    rmp.pvalidate(asid, 0, pfn, pfn, PAGE_4K, PAGE_4K, true)
    for (let vmpl = 1; vmpl < VMPLS; vmpl++) {
      const mask = draw < 10 ? MASKS[random.int(0, 2)]! : PERMISSION.ALL
      rmp.rmpadjust(asid, 0, pfn, pfn, PAGE_4K, PAGE_4K, vmpl, mask, false)
    }
  }
  return rmp
}

const entryOf = (rmp: Rmp, pfn: number): Entry => {
  const { assigned, size, immutable, validated, asid, gfn, perms } = rmp.entry(pfn)
  return { assigned, large: size !== PAGE_4K, immutable, validated, asid, gfn, masks: perms }
}

// Local copies, as the simulator has them: an imported name is loaded anew at each use.
const KIND_READ = ACCESS.READ
const KIND_WRITE = ACCESS.WRITE
const MAY_READ = PERMISSION.READ
const MAY_READ_WRITE = PERMISSION.READ | PERMISSION.WRITE
const MAY_EXECUTE_USER = PERMISSION.EXECUTE_USER
const MAY_EXECUTE_SUPERVISOR = PERMISSION.EXECUTE_SUPERVISOR
const PASS = FAULT.NONE
const NPF_RMP = FAULT.NPF | FAULT.RMP
const NPF_VMPL = FAULT.NPF | FAULT.RMP | FAULT.VMPL
const NOT_VALIDATED = FAULT.VC_NOT_VALIDATED

/** The check of a private 4 KiB access on a plain entry, in the order of the simulator's. */
const checkEntry = (entry: Entry | undefined, vmpl: number, cpl: number, kind: number, gfn: number): number => {
  if (entry === undefined || !entry.assigned || entry.large || entry.immutable) return NPF_RMP
  if (entry.asid !== GUEST_ASID || entry.gfn !== gfn) return NPF_RMP
  if (!entry.validated) return NOT_VALIDATED
  const mask = entry.masks[vmpl]!
  const allowed =
    kind === KIND_READ
      ? (mask & MAY_READ) !== 0
      : kind === KIND_WRITE
        ? (mask & MAY_READ_WRITE) === MAY_READ_WRITE
        : (mask & (cpl === 3 ? MAY_EXECUTE_USER : MAY_EXECUTE_SUPERVISOR)) !== 0
  return allowed ? PASS : NPF_VMPL
}

const quick = process.argv.includes("--quick")
const subject = process.argv[2]
const rmp = fill()
const random = new RandomStream(1, "bench accesses")
const pfns = Int32Array.from({ length: ACCESSES }, () => random.int(0, PAGES - 1))
const vmpls = Uint8Array.from({ length: ACCESSES }, () => random.int(0, VMPLS - 1))
const kinds = Uint8Array.from({ length: ACCESSES }, () => KINDS[random.int(0, 2)]!)

const typed = (): number => {
  let sum = 0
  for (let i = 0; i < ACCESSES; i++) {
    const pfn = pfns[i]!
    const code = rmp.checkGuest(GUEST_ASID, vmpls[i]!, 0, kinds[i]!, true, pfn, pfn, PAGE_4K)
    sum = (sum + Math.imul(code, i | 1)) | 0
  }
  return sum
}

const overMap = (): (() => number) => {
  const table = new Map<number, Entry>()
  for (let pfn = 0; pfn < PAGES; pfn++) table.set(pfn, entryOf(rmp, pfn))
  return () => {
    let sum = 0
    for (let i = 0; i < ACCESSES; i++) {
      const pfn = pfns[i]!
      sum = (sum + Math.imul(checkEntry(table.get(pfn), vmpls[i]!, 0, kinds[i]!, pfn), i | 1)) | 0
    }
    return sum
  }
}

const overObjects = (): (() => number) => {
  const table = Array.from({ length: PAGES }, (_, pfn) => entryOf(rmp, pfn))
  return () => {
    let sum = 0
    for (let i = 0; i < ACCESSES; i++) {
      const pfn = pfns[i]!
      sum = (sum + Math.imul(checkEntry(table[pfn], vmpls[i]!, 0, kinds[i]!, pfn), i | 1)) | 0
    }
    return sum
  }
}

const body = subject === "map" ? overMap() : subject === "objects" ? overObjects() : typed
const timed = (rounds: number): number => {
  const begin = performance.now()
  for (let round = 0; round < rounds; round++) body()
  return ((performance.now() - begin) * 1e6) / (rounds * ACCESSES)
}
timed(quick ? 5 : 50)
const ns = timed(quick ? 20 : 300)
process.stdout.write(`${JSON.stringify({ values: { ns }, digest: String(body()) })}\n`)
