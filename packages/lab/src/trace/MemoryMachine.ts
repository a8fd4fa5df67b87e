import { createHash } from "node:crypto"
import { ACCESS, FAULT, isFault } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { HOST_ASID, PhysicalMemory, rightOf, TLB_RIGHTS, type Tlb, TlbFlushingRmp, TlbSet } from "@vmpl-lab/vmpl"
import type { AccessKind, TraceConfig } from "./Action.ts"
import { LineInvalid } from "./Fields.ts"
import type { MemoryAccessor, MemoryAction } from "./MemoryAction.ts"
import { faultReply, OK, type Reply } from "./Reply.ts"
import { nptSizeOf, pfnOf, TraceMachine } from "./TraceMachine.ts"

const TLB_ENTRIES = 64
/** Each guest's VMSAs stay on the one core: their entries survive from one access to the next. */
const TLB_ID = 1
/** Frames beyond the RMP that have memory too. */
const BEYOND = 512
/** What a mapping without page tables of the guest allows: everything. */
const UNPAGED = 0

type GuestAccessor = Extract<MemoryAccessor, { by: "guest" }>

/** Where an access ended: frame and key, or the fault. */
type Found = { readonly pfn: number; readonly key: number } | number

const keyOf = (asid: number): Uint8Array => createHash("sha256").update(`trace guest ${asid}`).digest()

/** A trace's machine with memory behind it: encrypted by a key for each ASID, and seen by guests through a TLB. */
export class MemoryMachine extends TraceMachine {
  readonly #memory: PhysicalMemory
  readonly #tlb: Tlb
  readonly #frames: number
  readonly #keys = new Set<number>()
  readonly #saved = new Map<string, Uint8Array>()

  constructor(config: TraceConfig) {
    const tlbs = new TlbSet(TLB_ENTRIES)
    super(config, new TlbFlushingRmp(config, tlbs))
    this.#tlb = tlbs.attach()
    this.#frames = config.basePfn + config.pages + BEYOND
    this.#memory = new PhysicalMemory(this.#frames)
  }

  /** Does one memory operation. @throws LineInvalid where there is no such memory or no such copy */
  touch(action: MemoryAction): Reply {
    switch (action.op) {
      case "load":
        return this.#load(action.accessor, action.bytes)
      case "store":
        return this.#store(action.accessor, action.data)
      case "clear":
        return this.#store(action.accessor, new Uint8Array(PAGE_SIZE))
      case "save":
        // A host's read is never refused: it gets ciphertext.
        this.#saved.set(action.name, Uint8Array.from(this.#bytes(this.#existing(action.pfn), HOST_ASID)))
        return OK
      case "restore":
        return this.#store({ by: "host", pfn: action.pfn }, this.#copy(action.name))
      case "write-back":
        this.#memory.replace(this.#existing(action.pfn), HOST_ASID, this.#copy(action.name))
        return OK
      case "tlb-flush":
        this.#tlb.flushAsid(action.asid)
        return OK
      case "erratum":
        this.rmp.setFalseFaults(action.falseFaults)
        return OK
    }
  }

  #copy(name: string): Uint8Array {
    const copy = this.#saved.get(name)
    if (copy === undefined) throw new LineInvalid("name", "got a name without a copy", "one that save was given")
    return copy
  }

  #load(accessor: MemoryAccessor, bytes: number): Reply {
    const found = this.#find(accessor, ACCESS.READ)
    if (typeof found === "number") return faultReply(found)
    const data = Buffer.from(this.#bytes(found.pfn, found.key).subarray(0, bytes)).toString("hex")
    return { ok: true, data }
  }

  #store(accessor: MemoryAccessor, data: Uint8Array): Reply {
    const found = this.#find(accessor, ACCESS.WRITE)
    if (typeof found === "number") return faultReply(found)
    const page = Uint8Array.from(this.#bytes(found.pfn, found.key))
    page.set(data)
    this.#memory.replace(found.pfn, found.key, page)
    return OK
  }

  #bytes(pfn: number, asid: number): Uint8Array {
    const view = this.#memory.read(pfn, asid)
    return new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE)
  }

  #find(accessor: MemoryAccessor, kind: AccessKind): Found {
    if (accessor.by === "guest") return this.#findGuest(accessor, kind)
    const fault = this.rmp.checkHost(this.#existing(accessor.pfn), kind, 0)
    return fault === FAULT.NONE ? { pfn: accessor.pfn, key: HOST_ASID } : fault
  }

  #existing(pfn: number): number {
    if (pfn >= this.#frames)
      throw new LineInvalid("spa", `got frame 0x${pfn.toString(16)}`, "memory that the machine has")
    return pfn
  }

  /** Through the TLB: an entry keeps frame and rights until it is flushed. */
  #findGuest(accessor: GuestAccessor, kind: AccessKind): Found {
    const { asid, vmpl, cpl, cbit, gfn } = accessor
    const address = gfn * PAGE_SIZE
    this.#tlb.enter(asid, vmpl, TLB_ID)
    const known = this.#tlb.lookup(address, kind, cbit)
    if (known !== undefined && (known.rights & rightOf(kind, cpl)) !== 0) return known
    const pfn = pfnOf(accessor, this.rmp)
    const check = (one: number, level: number) =>
      this.rmp.checkGuest(asid, vmpl, level, one, cbit, gfn, pfn, nptSizeOf(accessor))
    const fault = check(kind, cpl)
    if (isFault(fault)) return fault
    const key = cbit ? asid : HOST_ASID
    if (cbit && !this.#keys.has(asid)) {
      this.#keys.add(asid)
      this.#memory.setKey(asid, keyOf(asid))
    }
    let rights = 0
    for (const [one, level] of TLB_RIGHTS) if (check(one, level) === FAULT.NONE) rights |= rightOf(one, level)
    this.#tlb.fill(address, kind, cbit, { pfn: this.#existing(pfn), key, mapping: UNPAGED, rights })
    return { pfn, key }
  }
}
