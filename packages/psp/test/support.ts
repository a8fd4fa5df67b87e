import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { PspMemory } from "../src/index.ts"

/** Memory with a toy cipher: every byte is XORed with a byte of the ASID's key, so any range can be looked at. */
export class KeyedMemory implements PspMemory {
  readonly raw = new Map<number, Uint8Array>()
  readonly keys = new Map<number, Uint8Array>()

  readPlain(pfn: number): Uint8Array {
    return this.raw.get(pfn) ?? new Uint8Array(PAGE_SIZE)
  }
  writePlain(pfn: number, contents: Uint8Array): void {
    this.raw.set(pfn, contents.slice())
  }
  readEncrypted(pfn: number, asid: number): Uint8Array {
    return this.#xor(this.readPlain(pfn), asid)
  }
  writeEncrypted(pfn: number, asid: number, contents: Uint8Array): void {
    this.raw.set(pfn, this.#xor(contents, asid))
  }
  createKey(asid: number, key: Uint8Array): void {
    this.keys.set(asid, key.slice())
  }
  destroyKey(asid: number): void {
    this.keys.delete(asid)
  }

  #xor(bytes: Uint8Array, asid: number): Uint8Array {
    const key = this.keys.get(asid)
    if (key === undefined) throw new Error(`ASID ${asid} has no key`)
    return bytes.map((byte, i) => byte ^ key[i % key.length]!)
  }
}
