/**
 * States in the order in which they were found, each with the state and the action that led to it. A table of its own,
 * because a Map of so many numbers takes ten times the memory: here a state is 14 bytes and its place in the index.
 */
export class StateSet {
  #keys = new Float64Array(1024)
  #from = new Int32Array(1024)
  #by = new Int16Array(1024)
  /** Open addressing: number of a state plus one, 0 for a free place. Never more than half full. */
  #index = new Int32Array(2048)
  #size = 0

  get size(): number {
    return this.#size
  }

  /** Key of a state by its number. */
  key(state: number): number {
    return this.#keys[state]!
  }

  /** State that led to a state, -1 for the first. */
  from(state: number): number {
    return this.#from[state]!
  }

  /** Action that led to a state. */
  by(state: number): number {
    return this.#by[state]!
  }

  /** Adds a state unless it is there. */
  add(key: number, from: number, by: number): void {
    const at = this.#find(key)
    if (this.#index[at] !== 0) return
    if (this.#size === this.#keys.length) this.#growStates()
    this.#keys[this.#size] = key
    this.#from[this.#size] = from
    this.#by[this.#size] = by
    this.#size++
    this.#index[at] = this.#size
    if (this.#size * 2 > this.#index.length) this.#growIndex()
  }

  /** Place of a key in the index, or the free place where it belongs. */
  #find(key: number): number {
    const mask = this.#index.length - 1
    let at = hash(key) & mask
    for (let state = this.#index[at]!; state !== 0 && this.#keys[state - 1] !== key; state = this.#index[at]!)
      at = (at + 1) & mask
    return at
  }

  #growStates(): void {
    const length = Math.ceil(this.#keys.length * 1.5)
    this.#keys = new Float64Array(this.#keys.buffer.transfer(length * 8))
    this.#from = new Int32Array(this.#from.buffer.transfer(length * 4))
    this.#by = new Int16Array(this.#by.buffer.transfer(length * 2))
  }

  #growIndex(): void {
    this.#index = new Int32Array(this.#index.length * 2)
    for (let state = 0; state < this.#size; state++) this.#index[this.#find(this.#keys[state]!)] = state + 1
  }
}

/** Mixes both halves of a key of up to 53 bits. */
const hash = (key: number): number => {
  const mixed = Math.imul(key | 0, 0x9e37_79b1) ^ Math.imul(Math.floor(key / 0x1_0000_0000), 0x85eb_ca6b)
  return (mixed ^ (mixed >>> 15)) >>> 0
}
