/**
 * Pending events ordered by (time, sequence number): FIFO among events of one instant. A binary heap in typed arrays;
 * a payload is a small integer. Times are integer virtual nanoseconds, exact in a double.
 */
export class EventQueue {
  #time = new Float64Array(64)
  #sequence = new Float64Array(64)
  #payload = new Int32Array(64)
  #size = 0
  #next = 0

  get size(): number {
    return this.#size
  }

  /** Time of the earliest event, or Infinity. */
  peekTime(): number {
    return this.#size === 0 ? Infinity : this.#time[0]!
  }

  push(time: number, payload: number): void {
    if (this.#size === this.#time.length) this.#grow()
    let i = this.#size++
    const sequence = this.#next++
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (this.#time[parent]! <= time) break
      this.#move(parent, i)
      i = parent
    }
    this.#set(i, time, sequence, payload)
  }

  /** Removes the earliest event and gives its payload. The queue must not be empty. */
  pop(): number {
    const payload = this.#payload[0]!
    const last = --this.#size
    if (last > 0) this.#siftDown(this.#time[last]!, this.#sequence[last]!, this.#payload[last]!)
    return payload
  }

  #siftDown(time: number, sequence: number, payload: number): void {
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= this.#size) break
      if (child + 1 < this.#size && this.#before(child + 1, child)) child++
      const childTime = this.#time[child]!
      if (childTime > time || (childTime === time && this.#sequence[child]! > sequence)) break
      this.#move(child, i)
      i = child
    }
    this.#set(i, time, sequence, payload)
  }

  #before(a: number, b: number): boolean {
    const ta = this.#time[a]!
    const tb = this.#time[b]!
    return ta < tb || (ta === tb && this.#sequence[a]! < this.#sequence[b]!)
  }

  #move(from: number, to: number): void {
    this.#set(to, this.#time[from]!, this.#sequence[from]!, this.#payload[from]!)
  }

  #set(i: number, time: number, sequence: number, payload: number): void {
    this.#time[i] = time
    this.#sequence[i] = sequence
    this.#payload[i] = payload
  }

  #grow(): void {
    const double = <A extends Float64Array | Int32Array>(from: A, to: A): A => {
      to.set(from)
      return to
    }
    this.#time = double(this.#time, new Float64Array(this.#size * 2))
    this.#sequence = double(this.#sequence, new Float64Array(this.#size * 2))
    this.#payload = double(this.#payload, new Int32Array(this.#size * 2))
  }
}
