import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, readBytes, work, writeBytes } from "@vmpl-lab/vmpl"
import { GUEST_BUFFER_COST } from "./GuestBuffer.ts"

/**
 * What a secret costs beside its bytes, virtual ns. Assumed, a guess without a source: a look into a small table of the
 * service's own, some cache misses.
 */
export const SECRET_COST = { LOOK_UP: 100 } as const

/** Smallest slot. A page holds slots of one size, a power of two. */
const SLOT_MIN = 16

/** Where a secret is. */
interface Place {
  readonly gpa: number
  readonly room: number
  readonly length: number
}

/** Gives a page of zeros that nobody else can read, or null. */
export type AllocatePage = () => Program<number | null>

const roomFor = (length: number): number => {
  let room = SLOT_MIN
  while (room < length) room *= 2
  return room
}

const copyNs = (length: number): number => Math.ceil((length * GUEST_BUFFER_COST.COPY_KIB) / 1024)

/**
 * A service's secrets by key. Their bytes are in pages of the simulated machine that belong to the service's level alone,
 * so that the RMP keeps other levels and the host away from them, and are wiped when they are replaced or removed. Which
 * key is where is the program's own data.
 */
export class SecretStore {
  readonly #places = new Map<string, Place>()
  /** Slots that are not in use, by their size. */
  readonly #free = new Map<number, Array<number>>();

  /** @returns a copy, or null where there is none */
  *get(key: string): Program<Uint8Array | null> {
    const place = this.#places.get(key)
    yield work(SECRET_COST.LOOK_UP + copyNs(place?.length ?? 0))
    if (place === undefined) return null
    const bytes = new Uint8Array(place.length)
    if (place.length > 0) yield readBytes(place.gpa, bytes)
    return bytes
  }

  /** @returns false where there is no room: then the key keeps what it had. A value is a page at most */
  *set(key: string, value: Uint8Array, allocate: AllocatePage): Program<boolean> {
    yield work(SECRET_COST.LOOK_UP + copyNs(value.length))
    const room = roomFor(value.length)
    if (room > PAGE_SIZE) return false
    const old = this.#places.get(key)
    const gpa = old?.room === room ? old.gpa : yield* this.#take(room, allocate)
    if (gpa === null) return false
    if (old !== undefined && old.gpa !== gpa) yield* this.#wipe(old)
    const bytes = new Uint8Array(room)
    bytes.set(value)
    yield writeBytes(gpa, bytes)
    this.#places.set(key, { gpa, room, length: value.length })
    return true
  }

  *remove(key: string): Program {
    const place = this.#places.get(key)
    yield work(SECRET_COST.LOOK_UP)
    if (place === undefined) return
    this.#places.delete(key)
    yield* this.#wipe(place)
  }

  *#take(room: number, allocate: AllocatePage): Program<number | null> {
    const slot = this.#slots(room).pop()
    if (slot !== undefined) return slot
    const page = yield* allocate()
    if (page === null) return null
    // Another CPU may have taken a page of the same size meanwhile: both have slots then.
    for (let at = PAGE_SIZE - room; at > 0; at -= room) this.#slots(room).push(page + at)
    return page
  }

  *#wipe({ gpa, room }: Place): Program {
    yield writeBytes(gpa, new Uint8Array(room))
    this.#slots(room).push(gpa)
  }

  #slots(room: number): Array<number> {
    let slots = this.#free.get(room)
    if (slots === undefined) {
      slots = []
      this.#free.set(room, slots)
    }
    return slots
  }
}
