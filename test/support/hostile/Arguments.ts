import { ACCEPTANCE, CORE_CALL, MIGRATION_PROTOCOL, PROTOCOL, TPM_SEND_COMMAND } from "@vmpl-lab/guest"
import { PERMISSION } from "@vmpl-lab/rmp"
import { guidBytes, PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { RandomStream } from "@vmpl-lab/sim"
import { type GuestVmsa, SERVICE_GUID } from "@vmpl-lab/svsm"
import { Journey } from "./Journey.ts"
import { LARGE_PARTS, SHARED, SVSM } from "./Layout.ts"
import type { HostileMachine } from "./Machine.ts"
import { SERVICE } from "./Services.ts"
import { uefiMessage } from "./UefiCalls.ts"

/** Pages that the guest plays with: validated ones, some below 1 MiB where PCs had their video memory, and others. */
const POOL = [
  ...Array.from({ length: 20 }, (_, i) => 0x4_0000 + i * PAGE_SIZE),
  ...Array.from({ length: 8 }, (_, i) => LARGE_PARTS[0]! - (i + 1) * PAGE_SIZE),
  ...LARGE_PARTS
]
/** Pages of the buffers that the host has, as long as nobody has them made private: those of the last one. */
const SHARED_PAGES = Array.from(
  { length: 4 },
  (_, i) => SHARED.gpa + ((SHARED.buffers - 1) * SHARED.pages + i) * PAGE_SIZE
)
/** Bit of a list's entry: 2 MiB. */
const LARGE_ENTRY = 1
/** What COCONUT-SVSM does not clear when it is validated. */
export const VIDEO_MEMORY = Array.from({ length: 12 }, (_, i) => 0xa_0000 + 8 * i * PAGE_SIZE)
const ALL = 0xf

type Quad = readonly [hi: number, lo: number]
export interface Call {
  readonly protocol: number
  readonly call: number
  readonly rcx: Quad
  readonly rdx: Quad
  readonly r8: Quad
}

/** How often each protocol comes, in 24. */
const WEIGHTS: ReadonlyArray<readonly [protocol: number, times: number]> = [
  [PROTOCOL.CORE, 9],
  [PROTOCOL.ATTESTATION, 2],
  [PROTOCOL.VTPM, 2],
  [PROTOCOL.APIC, 2],
  [SERVICE.SAFE, 3],
  [SERVICE.LEAKY, 1],
  [PROTOCOL.UEFI_MM, 2],
  [ACCEPTANCE.PROTOCOL, 2],
  [MIGRATION_PROTOCOL, 1]
]
/** While the guest is moved. */
const MIGRATING: ReadonlyArray<readonly [protocol: number, times: number]> = [
  [MIGRATION_PROTOCOL, 12],
  [PROTOCOL.CORE, 4],
  [ACCEPTANCE.PROTOCOL, 2],
  [SERVICE.SAFE, 1],
  [SERVICE.LEAKY, 1]
]
const protocolsOf = (weights: typeof WEIGHTS): ReadonlyArray<number> =>
  weights.flatMap(([protocol, times]) => new Array<number>(times).fill(protocol))

/** Calls that are nearly good, and bytes that are nearly what they should be, in pages where a level may write. */
export class Arguments {
  readonly #machine: HostileMachine
  readonly #random: RandomStream
  readonly #pool: ReadonlyArray<number>
  readonly #journey: Journey
  readonly #protocols: ReadonlyArray<number>

  constructor(machine: HostileMachine, random: RandomStream) {
    this.#machine = machine
    this.#random = random
    const { behaviour, pages = behaviour === "coconut" ? [] : VIDEO_MEMORY } = machine.options
    this.#pool = [...POOL, ...pages, ...SHARED_PAGES]
    machine.pool = this.#pool
    this.#journey = new Journey(machine, random)
    this.#protocols = protocolsOf(machine.options.isMigrating ? MIGRATING : WEIGHTS)
  }

  /** Addresses of all pages that the guest plays with. */
  pages(): ReadonlyArray<number> {
    return this.#pool
  }

  /** The guest on its way elsewhere. */
  get journey(): Journey {
    return this.#journey
  }

  page(): number {
    return this.#oneOf(this.#pool)
  }

  /** A third of the pool is VMPL3's too. */
  share(): void {
    for (const gpa of this.#pool) {
      const { validated, perms } = this.#machine.entry(gpa)
      if (!validated || gpa % (3 * PAGE_SIZE) !== 0) continue
      this.#machine.setEntry(gpa, {
        perms: perms.map((mask, level) => (level === 3 ? ALL : mask)) as [number, number, number, number]
      })
    }
  }

  mayWrite(gpa: number, vmpl: number): boolean {
    if (gpa % PAGE_SIZE !== 0 || gpa >= SVSM.gpa) return false
    const { validated, vmsa, perms } = this.#machine.entry(gpa)
    return validated && !vmsa && (perms[vmpl]! & PERMISSION.WRITE) !== 0
  }

  /** A list, a VMSA, an operation or a request somewhere. */
  writePage(vmpl: number): void {
    const gpa = this.page()
    if (!this.mayWrite(gpa, vmpl)) return
    const kind = this.#int(0, 4)
    if (kind === 0) this.#machine.put(gpa, this.#machine.vmsaBytes(this.#oneOf([0, 1, 2, 2, 3, 3, 4])))
    else if (kind <= 2) this.#writeList(gpa)
    else if (kind === 3) this.#writeOperation(gpa, this.#pool)
    else this.#writeTpmRequest(gpa)
  }

  /** A few bytes of a page change. */
  scribble(vmpl: number): void {
    const gpa = this.page()
    if (!this.mayWrite(gpa, vmpl)) return
    this.#machine.view(gpa).setUint32(this.#oneOf([0, 4, 8, 16, 0x20]), this.#int(-0x8000_0000, 0x7fff_ffff), true)
  }

  /** What is asked of VMPL0. */
  call(caller: GuestVmsa): Call {
    const { vmpl } = caller
    const protocol = this.#oneOf(this.#int(0, 39) === 0 ? [5, 6, 0x8000_0000] : this.#protocols)
    const any = { protocol, rcx: this.#address(), rdx: this.#address(), r8: this.#word() }
    const own = this.#pool.filter((gpa) => this.mayWrite(gpa, vmpl))
    const mine: Quad = own.length > 0 && this.#int(0, 5) > 0 ? [0, this.#oneOf(own)] : any.rcx
    const isReady = this.#int(0, 3) > 0 && mine[0] === 0 && this.mayWrite(mine[1], vmpl)
    switch (protocol) {
      case PROTOCOL.CORE:
        return { ...any, ...this.#core(any.rcx, mine, vmpl) }
      case PROTOCOL.ATTESTATION:
        if (isReady) this.#writeOperation(mine[1], own)
        return { ...any, call: this.#oneOf([0, 0, 0, 1, 1, 2]), rcx: mine }
      case PROTOCOL.VTPM:
        if (isReady) this.#writeTpmRequest(mine[1])
        return { ...any, call: this.#oneOf([0, 1, 1, 1, 1, 1, 2]), rcx: mine }
      case PROTOCOL.APIC:
        return { ...any, ...this.#apic() }
      case PROTOCOL.UEFI_MM:
        if (isReady) this.#machine.put(mine[1], uefiMessage((from, to) => this.#int(from, to)).subarray(0, PAGE_SIZE))
        return { ...any, call: this.#oneOf([0, 1, 1, 1, 1]), rcx: mine, rdx: [0, this.#oneOf([23, 4096, 4096, 8192])] }
      case ACCEPTANCE.PROTOCOL:
        return { ...any, ...this.#accept() }
      case MIGRATION_PROTOCOL:
        return this.#journey.call(caller)
      default:
        return {
          ...any,
          call: this.#oneOf([0, 0, 1, 1, 2, 3]),
          rcx: mine,
          rdx: [0, this.#oneOf([15, 16, 100, 4096, 8192, 8193])]
        }
    }
  }

  #int(from: number, to: number): number {
    return this.#random.int(from, to)
  }

  #oneOf<T>(values: ReadonlyArray<T>): T {
    return values[this.#int(0, values.length - 1)]!
  }

  #word(): Quad {
    return [this.#int(0, 19) === 0 ? 1 : 0, this.#oneOf([0, 1, 2, 3, 1, 2, 3, 4, 0xffff_ffff])]
  }

  /** Most calls name a page that was made for them. */
  #core(any: Quad, mine: Quad, vmpl: number): { readonly call: number; readonly rcx: Quad } {
    const asked = this.#oneOf([0, 1, 1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 0xffff_ffff])
    // With a vCPU of which nobody knows the guest would never stop.
    const isOdd = this.#machine.options.isMigrating && asked === CORE_CALL.CREATE_VCPU && this.#int(0, 9) > 0
    const call = isOdd ? CORE_CALL.PVALIDATE : asked
    if (this.#int(0, 2) === 0 || mine[0] !== 0 || !this.mayWrite(mine[1], vmpl)) return { call, rcx: any }
    if (call === CORE_CALL.PVALIDATE || call === CORE_CALL.DEPOSIT_MEM) this.#writeList(mine[1])
    if (call === CORE_CALL.CREATE_VCPU)
      this.#machine.put(mine[1], this.#machine.vmsaBytes(this.#oneOf([vmpl, vmpl, 3, 0])))
    return { call, rcx: call === CORE_CALL.QUERY_PROTOCOL ? [this.#oneOf(this.#protocols), this.#int(0, 2)] : mine }
  }

  /** A few pages that nobody has validated, or a region. */
  #accept(): Pick<Call, "call" | "rcx" | "rdx" | "r8"> {
    const isLarge = this.#int(0, 5) === 0
    const rcx: Quad = isLarge ? [0, LARGE_PARTS[0]!] : this.#address()
    const units = this.#oneOf([1, 1, 2, 3, 12, 0, 1000, 0xffff_ffff])
    return {
      call: this.#oneOf([0, 0, 0, 0, 0, 1]),
      rcx,
      rdx: [this.#int(0, 19) === 0 ? 1 : 0, units],
      r8: [0, isLarge ? 1 : this.#oneOf([0, 0, 0, 0, 2])]
    }
  }

  #apic(): { readonly call: number; readonly rcx: Quad; readonly rdx: Quad } {
    const register = this.#oneOf([0x802, 0x808, 0x80a, 0x80b, 0x80d, 0x810, 0x818, 0x820, 0x830, 0x83f, 0x900])
    const call = this.#oneOf([0, 1, 2, 2, 3, 3, 4, 5])
    const rcx = call === 1 ? this.#oneOf([0, 1, 1, 1, 3]) : call === 4 ? this.#int(0, 0x7ff) : register
    return { call, rcx: [this.#int(0, 19) === 0 ? 1 : 0, rcx], rdx: [this.#int(0, 3), this.#int(0, 0xfffff)] }
  }

  /** Where a call could be told to go: mostly a page of the pool. */
  #target(): number {
    const kind = this.#int(0, 9)
    if (kind < 8) return this.page()
    const { registry } = this.#machine.state
    const { vmsaGpa, caGpa } = this.#oneOf(registry)
    const last = SVSM.gpa + SVSM.size - PAGE_SIZE
    return this.#oneOf([vmsaGpa, caGpa, SVSM.gpa, SVSM.gpa + 0x1_0000, last, 0, LARGE_PARTS[0]!])
  }

  #address(): Quad {
    const kind = this.#int(0, 19)
    if (kind === 0) return [this.#int(0, 0x7fff_ffff), this.#int(0, 0x7fff_ffff)]
    if (kind === 1) return [this.#oneOf([1, 0x10_0000, 0xffff_ffff]), this.#target()]
    if (kind <= 3) return [0, this.#target() + this.#oneOf([1, 8, 0xff0, 0xff8])]
    if (kind === 4) return [0xffff_ffff, 0xffff_f000]
    return [0, this.#target()]
  }

  #writeList(gpa: number): void {
    const view = this.#machine.view(gpa)
    const count = this.#int(0, 15) === 0 ? 0 : this.#int(1, 6)
    const isOdd = this.#int(0, 7) === 0
    view.setUint32(0, (count + (isOdd ? 600 : 0)) | (this.#oneOf([0, 0, 0, 0, 0, 0, 1, count]) << 16), true)
    for (let i = 0; i < count; i++) {
      const isLarge = this.#int(0, 7) === 0
      const [hi, lo] = this.#int(0, 11) === 0 ? this.#address() : [0, isLarge ? LARGE_PARTS[0]! : this.page()]
      const good = this.#oneOf([0, 8, 4, 12]) | (isLarge ? LARGE_ENTRY : 0)
      const bits = this.#int(0, 15) === 0 ? this.#oneOf([1, 5, 0x10]) : good
      view.setUint32(8 + 8 * i, ((lo & ~0xfff) | bits) >>> 0, true)
      view.setUint32(12 + 8 * i, hi, true)
    }
  }

  /** The structure of the attestation protocol: each field good, or not. */
  #writeOperation(gpa: number, own: ReadonlyArray<number>): void {
    const view = this.#machine.view(gpa)
    this.#machine.put(gpa, new Uint8Array(0x58))
    for (const [at, sizes] of [
      [0x00, [0x4a0, 4096, 8192, 0, 0xffff_ffff]],
      [0x10, [64]],
      [0x20, [4096, 4096, 16]],
      [0x30, [0, 0, 4096, 0x4000, 0x4001]]
    ] as const) {
      const [hi, lo] = this.#int(0, 9) === 0 || own.length === 0 ? this.#address() : [0, this.#oneOf(own)]
      view.setUint32(at, lo, true)
      view.setUint32(at + 4, hi, true)
      view.setUint32(at + 8, this.#oneOf(sizes), true)
    }
    if (this.#int(0, 19) === 0) view.setUint32(this.#oneOf([0x0c, 0x18, 0x2c, 0x3c]), this.#int(1, 0x7fff_ffff), true)
    this.#machine.put(gpa + 0x40, guidBytes(this.#oneOf([SERVICE_GUID.VTPM, SERVICE_GUID.MANIFEST])))
  }

  #writeTpmRequest(gpa: number): void {
    const view = this.#machine.view(gpa)
    view.setUint32(0, this.#oneOf([TPM_SEND_COMMAND, TPM_SEND_COMMAND, TPM_SEND_COMMAND, 7]), true)
    view.setUint8(4, this.#oneOf([0, 0, 0, 1]))
    view.setUint32(5, this.#oneOf([0, 10, 12, 100, 4087, 4088, 0xffff_ffff]), true)
    view.setUint32(9, this.#int(0, 0x7fff_ffff), true)
  }
}
