import { CALLING_AREA, MIGRATION_ROLE } from "@vmpl-lab/guest"
import { PERMISSION } from "@vmpl-lab/rmp"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { OP, type Operation } from "@vmpl-lab/vmpl"
import { type Cpu, HEAP, SVSM } from "./Layout.ts"
import type { HostileMachine } from "./Machine.ts"

const STORES: ReadonlySet<number> = new Set([OP.WRITE, OP.WRITE_BYTES, OP.ZERO_PAGE, OP.XCHG8])

/** Looks at each store of VMPL0: it must reach what the caller could write itself, or what is the SVSM's to write. */
export class Watch {
  /** What VMPL0 must not have done. */
  readonly trespasses: Array<string> = []
  /** Calling areas that calls name where their callers could write when they called, by the caller's VMSA. */
  readonly areas = new Map<number, number>()
  /** VMSAs that have got an answer. */
  readonly answered = new Set<number>()
  readonly #machine: HostileMachine

  constructor(machine: HostileMachine) {
    this.#machine = machine
  }

  before(cpu: Cpu, operation: Operation): void {
    if (!STORES.has(operation.op)) return
    const why = operation.cbit ? this.#refuses(cpu, operation) : this.#refusesShared(operation)
    if (why === null) return
    const { op, address, size } = operation
    const level = this.#machine.state.serving[cpu]?.vmpl
    this.trespasses.push(`operation ${op} of ${size} bytes at 0x${address.toString(16)} for VMPL${level}: ${why}`)
  }

  #refuses(cpu: Cpu, { op, address, size, bytes }: Operation): string | null {
    const { state, options } = this.#machine
    const page = address - (address % PAGE_SIZE)
    const length = bytes?.length ?? size
    if (state.registry.some(({ vmsaGpa }) => vmsaGpa === page)) {
      if (address === page + VMSA.rax) this.answered.add(page)
      return op === OP.WRITE || this.#parks(cpu, page, address) ? null : "a copy over a VMSA"
    }
    if (state.registry.some(({ caGpa }) => address >= caGpa && address + length <= caGpa + CALLING_AREA.SIZE))
      return null
    if (page >= HEAP.gpa && page < HEAP.gpa + HEAP.size) return null
    if (page >= SVSM.gpa && page < SVSM.gpa + SVSM.size) return "memory of its own, by a call"
    const { perms, validated, vmsa } = this.#machine.entry(page)
    const isNobodys = perms.slice(1).every((mask) => mask === 0)
    // What was just validated, or is about to be given back, is nobody's yet.
    if (op === OP.ZERO_PAGE && validated && isNobodys) return null
    if (op === OP.ZERO_PAGE && options.behaviour === "coconut") return null
    // A VMSA that DELETE_VCPU takes back has left the registry a moment before.
    if (vmsa && op === OP.WRITE) return null
    const caller = state.serving[cpu]
    if (caller === undefined) return "nobody called"
    // What the other SVSM has sealed goes where it was.
    const { agent, phase, role } = this.#machine.migration
    if (caller === agent && phase === "keyed" && role === MIGRATION_ROLE.TARGET) return null
    if (this.areas.get(caller.vmsaGpa) === page && length <= CALLING_AREA.SIZE) return null
    // A right that the migration service has taken for a while is the caller's all the same.
    const { guarded, giving } = this.#machine.migration
    if (giving.has(page / PAGE_SIZE)) return null
    const watched = guarded.get(page / PAGE_SIZE) ?? 0
    const rights = perms[caller.vmpl]! | (watched >>> (8 * (caller.vmpl - 1)))
    return (rights & PERMISSION.WRITE) === 0 ? "not the caller's to write" : null
  }

  /** A vCPU that parks forgets which core it ran on. */
  #parks(cpu: Cpu, page: number, address: number): boolean {
    return this.#machine.state.serving[cpu]?.vmsaGpa === page && address === page + VMSA.tlb_id
  }

  /** Shared pages of its own, and those of the guest that the host has and nobody has validated. */
  #refusesShared({ address }: Operation): string | null {
    if (address < SVSM.gpa && !this.#machine.entry(address - (address % PAGE_SIZE)).validated) return null
    return address >= SVSM.gpa && address < SVSM.gpa + SVSM.size ? null : "shared memory of somebody else"
  }
}
