import { REPORT } from "@vmpl-lab/psp"
import { getU64 } from "@vmpl-lab/sev-es"
import { decodeHello, type Migration, openRecord, recordSize } from "@vmpl-lab/svsm"

/** A record's header in the clear, and where its length and its number are. */
const HEADER = { SIZE: 32, SEQUENCE: 8, LENGTH: 24 } as const
/** What an offer begins with: role and two sizes. */
const OFFER_SIZES = 12
const PUBLIC_KEY = 97

/** What a CPU is storing, from its first page on. */
interface Stream {
  end: number
  bytes: Uint8Array
}

/**
 * What VMPL0 gives the host to carry to another SVSM. Of a record that really is sealed under the key only the header
 * tells something, of an offer all but the fresh key and what is signed over it. Everything else is passed on as it is.
 */
export class Carried {
  readonly #migration: Migration
  readonly #tell: (bytes: Uint8Array) => void
  readonly #streams: Array<Stream | undefined> = []
  /** The latest key: the last records are stored when it is gone. */
  #key: Uint8Array | null = null

  constructor(migration: Migration, tell: (bytes: Uint8Array) => void) {
    this.#migration = migration
    this.#tell = tell
  }

  /** A store of VMPL0's into a page that the host reads. */
  store(cpu: number, address: number, bytes: Uint8Array): void {
    this.#key = this.#migration.key ?? this.#key
    const latest = this.#streams[cpu]
    const isNext = latest?.end === address
    if (!isNext && latest !== undefined) this.#tell(latest.bytes)
    const before = isNext ? latest.bytes : new Uint8Array(0)
    const all = new Uint8Array(before.length + bytes.length)
    all.set(before)
    all.set(bytes, before.length)
    this.#streams[cpu] = { end: address + bytes.length, bytes: this.#take(all) }
  }

  /** Takes what is whole. @returns the rest */
  #take(bytes: Uint8Array): Uint8Array {
    let at = 0
    for (let size = this.#sizeOf(bytes); size !== null; size = this.#sizeOf(bytes.subarray(at))) {
      this.#tellItem(bytes.slice(at, at + size))
      at += size
    }
    return bytes.slice(at)
  }

  /** Bytes of the record or the offer that is at the beginning; null where not all of it is there. */
  #sizeOf(bytes: Uint8Array): number | null {
    if (bytes.length < HEADER.SIZE) return null
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    const size = isOffer(view)
      ? OFFER_SIZES + PUBLIC_KEY + view.getUint32(4, true) + view.getUint32(8, true)
      : recordSize(view.getUint32(HEADER.LENGTH, true))
    return size <= bytes.length ? size : null
  }

  #tellItem(item: Uint8Array): void {
    const view = new DataView(item.buffer)
    const offer = isOffer(view) ? decodeHello(item) : null
    if (offer !== null) {
      const report = offer.report.slice(0, REPORT.signature)
      report.fill(0, REPORT.report_data, REPORT.report_data + 64)
      this.#tell(item.slice(0, OFFER_SIZES))
      this.#tell(report)
      this.#tell(offer.certificates)
      return
    }
    const isSealed = this.#key !== null && openRecord(this.#key, getU64(view, HEADER.SEQUENCE), item).ok
    this.#tell(isSealed ? item.slice(0, HEADER.SIZE) : item)
  }
}

/** An offer begins with a role, a record with its magic. */
const isOffer = (view: DataView): boolean => view.getUint32(0, true) <= 1
