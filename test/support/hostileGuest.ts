import { apVmsa, CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { PERMISSION } from "@vmpl-lab/rmp"
import { EFER_SVME, EXIT, GHCB_MSR, PAGE_SIZE, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { RandomStream } from "@vmpl-lab/sim"
import type { GuestVmsa, SvsmBehaviour } from "@vmpl-lab/svsm"
import { OP, type Operation } from "@vmpl-lab/vmpl"
import { FIRMWARE, GUEST_VMSA, MIB, ScriptedHost, SVSM, SVSM_DATA } from "./scriptedHost.ts"

/** What stands in the SVSM's memory and nowhere else. */
export const SECRET = 0x5ec2_e75e
/** First page of the SVSM that holds it, up to its end. */
const SECRET_GPA = SVSM_DATA
/** Pages that the guest plays with: some validated, some not, and which VMPL3 may use too. */
const POOL = 0x4_0000
const POOL_PAGES = 24
const NOT_VALIDATED = 3 * MIB
const VMPL3_VMSA = 0x3_0000
const VMPL3_CA = 0x3_1000
const ALL = 0xf

/** A guest at VMPL2 and VMPL3 that asks for anything, and what must hold whatever it asks. */
export class HostileGuest {
  readonly host: ScriptedHost
  /** What the SVSM must not have done, as found while it ran. */
  readonly trespasses: Array<string> = []
  readonly results = new Map<number, number>()
  readonly #random: RandomStream
  #level = 2

  constructor(seed: number, behaviour: SvsmBehaviour) {
    this.#random = new RandomStream(seed, `hostile guest, ${behaviour}`)
    this.host = new ScriptedHost(behaviour).boot()
    for (let gpa = SECRET_GPA; gpa < SVSM.gpa + SVSM.size; gpa += PAGE_SIZE) {
      const view = this.host.poke(gpa)
      for (let i = 0; i < PAGE_SIZE; i += 4) view.setUint32(i, SECRET, true)
    }
    for (let page = 0; page < POOL_PAGES / 3; page++) {
      this.host.setEntry(POOL + page * PAGE_SIZE, { perms: [ALL, ALL, ALL, ALL] })
    }
    this.host.setEntry(VMPL3_CA, { perms: [ALL, ALL, ALL, ALL] })
    this.#addVmpl3()
    this.host.meddle = (operation) => this.#watch(operation)
  }

  /** One call with hostile arguments. @returns its result, null where it was none */
  call(): number | null {
    const { host } = this
    const own = host.state.registry[0]!
    this.#level = this.#int(0, 3) === 0 ? 3 : 2
    this.#restore()
    const caller = host.state.served[0]![this.#level] ?? own
    this.#level = caller.vmpl
    this.#writePool()
    const pending = this.#int(0, 19) === 0 ? this.#int(0, 255) : 1
    const exit = this.#int(0, 29) === 0 ? this.#int(0, 0x500) : EXIT.VMGEXIT
    this.#ring(caller, pending, exit)
    host.seen.length = 0
    host.answer()
    const { code, request } = host.run()
    const isIdle = code === EXIT.HLT && host.state.running[0] === undefined
    if (!isIdle && (code !== EXIT.VMGEXIT || request !== GHCB_MSR.RUN_VMPL_REQUEST)) {
      throw new Error(`VMPL0 stops with exit 0x${code.toString(16)}, GHCB MSR 0x${request.toString(16)}`)
    }
    if (pending === 0 || exit !== EXIT.VMGEXIT || !host.state.registry.includes(caller)) return null
    if ((host.peek(caller.vmsaGpa).getUint32(VMSA.efer, true) & EFER_SVME) === 0) this.#trespass("SVME stays off")
    const result = host.peek(caller.vmsaGpa).getUint32(VMSA.rax, true)
    this.results.set(result, (this.results.get(result) ?? 0) + 1)
    return result
  }

  /** Where the guest finds what is the SVSM's: in memory that a level may read, or in a register. */
  leaks(): ReadonlyArray<string> {
    const { host } = this
    const leaks: Array<string> = []
    for (let gpa = 0; gpa < FIRMWARE.gpa + FIRMWARE.size; gpa += PAGE_SIZE) {
      if (
        !host
          .entry(gpa)
          .perms.slice(1)
          .some((mask) => (mask & PERMISSION.READ) !== 0)
      )
        continue
      const view = host.peek(gpa)
      for (let i = 0; i < PAGE_SIZE; i += 4) {
        if (view.getUint32(i, true) === SECRET) leaks.push(`0x${(gpa + i).toString(16)}`)
      }
    }
    return leaks
  }

  #int(from: number, to: number): number {
    return this.#random.int(from, to)
  }

  #oneOf<T>(values: ReadonlyArray<T>): T {
    return values[this.#int(0, values.length - 1)]!
  }

  #addVmpl3(): void {
    const { host } = this
    this.#putVmsa(VMPL3_VMSA, 3)
    host.setEntry(VMPL3_VMSA, { vmsa: true, perms: [ALL, 0, 0, 1] })
    host.state.register({ vmsaGpa: VMPL3_VMSA, caGpa: VMPL3_CA, apicId: 0, vmpl: 3, guestOwned: true })
  }

  /** A guest that replaced or deleted the vCPU it runs on would not be served any more: both levels go on. */
  #restore(): void {
    const { state } = this.host
    if (!state.registry.some(({ vmpl, apicId }) => apicId === 0 && vmpl === 3)) {
      if (this.host.entry(VMPL3_VMSA).validated && state.validated.has(VMPL3_VMSA / PAGE_SIZE)) this.#addVmpl3()
    }
    const latest = (vmpl: number) => state.registry.find((one) => one.apicId === 0 && one.vmpl === vmpl)
    state.served[0] = [undefined, undefined, latest(2), latest(3)]
    state.running[0] = latest(2)
  }

  #page(): number {
    const kind = this.#int(0, 9)
    if (kind < 6) return POOL + this.#int(0, POOL_PAGES - 1) * PAGE_SIZE
    if (kind < 8) return NOT_VALIDATED + this.#int(0, 7) * PAGE_SIZE
    const { registry } = this.host.state
    const { vmsaGpa, caGpa } = this.#oneOf(registry)
    return this.#oneOf([vmsaGpa, caGpa, SVSM.gpa, SECRET_GPA, SVSM.gpa + SVSM.size - PAGE_SIZE, GUEST_VMSA, 0, 2 * MIB])
  }

  #address(): readonly [hi: number, lo: number] {
    const kind = this.#int(0, 19)
    if (kind === 0) return [this.#int(0, 0x7fff_ffff), this.#int(0, 0x7fff_ffff)]
    if (kind === 1) return [this.#oneOf([1, 0x10_0000, 0xffff_ffff]), this.#page()]
    if (kind === 2) return [0, this.#page() + this.#oneOf([1, 8, 0xff0, 0xff8])]
    if (kind === 3) return [0xffff_ffff, 0xffff_f000]
    return [0, this.#page()]
  }

  #mayWrite(gpa: number): boolean {
    const { validated, vmsa, perms } = this.host.entry(gpa)
    return validated && !vmsa && (perms[this.#level]! & PERMISSION.WRITE) !== 0
  }

  #putVmsa(gpa: number, vmpl: number): void {
    const sevFeatures = SEV_FEATURES.SNPActive
    const bytes = apVmsa({ vmpl, sevFeatures, codeBase: 0, rip: 0, argument: 0 })
    const view = this.host.poke(gpa)
    new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).set(bytes)
  }

  /** Lists, VMSAs and noise in the pages that the guest has. */
  #writePool(): void {
    for (let times = 0; times < 3; times++) {
      const gpa = POOL + this.#int(0, POOL_PAGES - 1) * PAGE_SIZE
      if (!this.#mayWrite(gpa)) continue
      const view = this.host.poke(gpa)
      if (this.#int(0, 2) === 0) this.#putVmsa(gpa, this.#oneOf([0, 1, 2, 2, 3, 3, 4]))
      else {
        const count = this.#int(0, 8)
        view.setUint32(0, (count + this.#oneOf([0, 0, 0, 600])) | (this.#oneOf([0, 0, 0, 1, count]) << 16), true)
        for (let i = 0; i < count; i++) {
          const [hi, lo] = this.#address()
          view.setUint32(8 + 8 * i, ((lo & ~0xfff) | this.#oneOf([0, 4, 8, 12, 4, 5, 1, 0x10])) >>> 0, true)
          view.setUint32(12 + 8 * i, hi, true)
        }
      }
    }
  }

  #ring(caller: GuestVmsa, pending: number, exit: number): void {
    const view = this.host.poke(caller.vmsaGpa)
    const call = this.#oneOf([0, 1, 1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 0xffff_ffff])
    const protocol = this.#int(0, 19) === 0 ? this.#oneOf([1, 2, 3, 4, 0x8000_0000]) : PROTOCOL.CORE
    view.setUint32(VMSA.rax, call, true)
    view.setUint32(VMSA.rax + 4, protocol, true)
    for (const register of [VMSA.rcx, VMSA.rdx]) {
      const [hi, lo] = this.#address()
      view.setUint32(register, lo, true)
      view.setUint32(register + 4, hi, true)
    }
    view.setUint32(VMSA.r8, this.#oneOf([0, 1, 2, 3, 4, 0xffff_ffff]), true)
    view.setUint32(VMSA.guest_exit_code, exit, true)
    // What the other level left unserved would come first.
    for (const other of this.host.state.served[0]!) if (other !== undefined) this.host.poke(other.caGpa).setUint8(0, 0)
    this.host.poke(caller.caGpa).setUint8(0, pending)
    if (call === CORE_CALL.CREATE_VCPU && this.#int(0, 1) === 0) view.setUint32(VMSA.r8, this.#int(1, 3), true)
  }

  /** Every store of the SVSM reaches what the caller could write itself, or what is the SVSM's to write. */
  #watch({ op, address, size }: Operation): void {
    if (op !== OP.WRITE && op !== OP.WRITE_BYTES && op !== OP.ZERO_PAGE && op !== OP.XCHG8) return
    const page = address - (address % PAGE_SIZE)
    const { registry } = this.host.state
    if (registry.some(({ vmsaGpa }) => vmsaGpa === page)) return
    if (registry.some(({ caGpa }) => address >= caGpa && address + size <= caGpa + 8)) return
    if (page >= SVSM.gpa && page < SVSM.gpa + SVSM.size) this.#trespass(`writes its own 0x${address.toString(16)}`)
    const { perms, validated } = this.host.entry(page)
    // What was just validated, or is about to be given back, is nobody's yet.
    if (op === OP.ZERO_PAGE && validated && perms.slice(1).every((mask) => mask === 0)) return
    if (op === OP.ZERO_PAGE && this.host.state.behaviour.name === "coconut") return
    // A page about to become a VMSA, or that has just been one, is the caller's too.
    if ((perms[this.#level]! & PERMISSION.WRITE) === 0) this.#trespass(`writes 0x${address.toString(16)}`)
  }

  #trespass(what: string): void {
    this.trespasses.push(`${what}, for VMPL${this.#level}`)
  }
}

const KNOWN = new Set<number>(Object.values(SVSM_RESULT))
/** Results that a call may have: those of the table, and those of a failed instruction. */
export const isResult = (result: number): boolean =>
  KNOWN.has(result) || (result > SVSM_RESULT.FAIL_BASE && result <= SVSM_RESULT.FAIL_BASE + 0x11)
