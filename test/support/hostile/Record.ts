import { GUEST_MESSAGE_HEADER_SIZE, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { MESSAGE_PAGES, type Migration, svsmMessageGpa } from "@vmpl-lab/svsm"
import { OP, type Operation, type OperationResult } from "@vmpl-lab/vmpl"
import { Carried } from "./Carried.ts"
import { isShared, SVSM } from "./Layout.ts"

/**
 * What legitimately depends on a secret of VMPL0's and is seen below. Everything else must be the same whatever the
 * secrets are.
 */
export const DECLASSIFIED = {
  "sealed message": "tag and ciphertext under VMPCK0: without the key they tell no more than their length",
  "sealed reply": "the AMD-SP's, under VMPCK0 too",
  "sealed record": "ciphertext and tag for another SVSM, if it opens under the key that both agreed on",
  offer: "a fresh public key, and what the AMD-SP has signed over it",
  "encrypted memory": "what the host reads of a private page: ciphertext under the guest's memory key"
} as const

/** Offset of what a header says in the clear; before it is the tag. */
const HEADER = 0x20

/** Operations whose outcome is VMPL0's own business: it may well be a secret. */
const LOADS: ReadonlySet<number> = new Set([OP.READ, OP.READ_BYTES, OP.XCHG8, OP.READ_REGISTER])

/**
 * A running digest of everything that somebody below VMPL0 can see or time: each operation with its operands, when it
 * was done, and what became of it. Of a store to memory that is VMPL0's alone only the place counts.
 */
export class Record {
  /** Two halves of one digest. */
  #a = 0x811c_9dc5 | 0
  #b = 0x5bd1_e995 | 0
  readonly #carried: Carried
  /** The latest operations, to tell what was going on where two records part. */
  readonly latest: Array<string> = []

  constructor(migration: Migration) {
    this.#carried = new Carried(migration, (bytes) => this.bytes(bytes))
  }

  get digest(): string {
    return `${this.#a},${this.#b}`
  }

  words(...words: ReadonlyArray<number>): void {
    for (const word of words) {
      this.#a = Math.imul(this.#a ^ word, 0x0100_0193)
      this.#b = (Math.imul(this.#b, 0x85eb_ca6b) + (word ^ Math.floor(word / 0x1_0000_0000))) | 0
      this.#a ^= this.#a >>> 15
    }
  }

  bytes(bytes: Uint8Array): void {
    const whole = bytes.length & ~3
    if (bytes.byteOffset % 4 === 0) {
      for (const word of new Int32Array(bytes.buffer, bytes.byteOffset, whole / 4)) this.words(word)
      this.words(...bytes.subarray(whole))
    } else this.words(...bytes)
  }

  operation(cpu: number, operation: Operation): void {
    const { op, address, size, lo, hi, bytes, cbit } = operation
    this.latest.push(`CPU ${cpu}: operation ${op} at 0x${address.toString(16)}, ${lo.toString(16)}`)
    if (this.latest.length > 40) this.latest.splice(0, 30)
    this.words(cpu, op, address, size)
    const isOwn = cbit && address >= SVSM.gpa && address < SVSM.gpa + SVSM.size && !isRegisters(address)
    if (isOwn && (op === OP.WRITE || op === OP.WRITE_BYTES)) return
    this.words(lo, hi)
    if (bytes === null || op !== OP.WRITE_BYTES) return
    if (!cbit && isShared(address)) {
      this.#carried.store(cpu, address, bytes)
      return
    }
    const isSealed = !cbit && address - svsmMessageGpa(SVSM) === MESSAGE_PAGES.REQUEST
    this.bytes(isSealed ? bytes.slice(HEADER, GUEST_MESSAGE_HEADER_SIZE) : bytes)
  }

  result({ op }: Operation, { lo, hi, edx, carry }: OperationResult): void {
    if (!LOADS.has(op)) this.words(lo, hi, edx, carry ? 1 : 0)
  }
}

/** The start-up vCPU's VMSA is in the SVSM's range, and yet shows the guest what it says. */
const isRegisters = (address: number): boolean => Math.floor((address - SVSM.gpa) / PAGE_SIZE) === 3
