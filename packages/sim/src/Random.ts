import { uniformInt } from "pure-rand/distribution/uniformInt"
import { xoroshiro128plusFromState } from "pure-rand/generator/xoroshiro128plus"
import type { RandomGenerator } from "pure-rand/types/RandomGenerator"

/** FNV-1a over UTF-16 code units: a fixed, portable way from a component's name to a seed. */
const hashName = (name: string, basis: number): number => {
  let hash = basis
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x0100_0193)
  return hash | 0
}

/** One stream of integers. Each component has its own, so that a new draw in one place does not move another. */
export class RandomStream {
  readonly #generator: RandomGenerator

  /** @param seed the run's seed, a safe integer. @param name the component that draws. */
  constructor(seed: number, name: string) {
    const high = Math.floor(seed / 0x1_0000_0000) | 0
    this.#generator = xoroshiro128plusFromState([
      hashName(name, 0x811c_9dc5),
      hashName(name, seed | 0),
      hashName(name, high ^ 0x5bd1_e995),
      1 | (seed << 1)
    ])
    for (let i = 0; i < 16; i++) this.#generator.next()
  }

  /** An integer from `from` to `to`, both included. */
  int(from: number, to: number): number {
    return uniformInt(this.#generator, from, to)
  }
}
