/**
 * What it costs that memory is encrypted: a write to a frame under another key than before decrypts and encrypts 4 KiB,
 * one under the same key does not. `copy` is a plain copy of 4 KiB, for scale. Prints nanoseconds each.
 */
import { performance } from "node:perf_hooks"
import { HOST_ASID, PhysicalMemory } from "@vmpl-lab/vmpl"

const PAGE = 4096
const FRAMES = 64
const KEYS = [1, 2] as const

const quick = process.argv.includes("--quick")
const memory = new PhysicalMemory(FRAMES)
for (const asid of KEYS) {
  memory.setKey(
    asid,
    Uint8Array.from({ length: 32 }, (_, i) => (i * 7 + asid * 13) & 0xff)
  )
}

/** Every frame is written under the key of `asid`. */
const touch = (asid: number): void => {
  for (let pfn = 0; pfn < FRAMES; pfn++) memory.write(pfn, asid).setUint8(0, pfn)
}
const ciphertext = (): number => {
  let sum = 0
  for (let pfn = 0; pfn < FRAMES; pfn++) sum += memory.read(pfn, HOST_ASID).getUint8(1)
  return sum
}
const from = new Uint8Array(PAGE * FRAMES).fill(7)
const to = new Uint8Array(PAGE * FRAMES)

const perFrame = (rounds: number, body: (round: number) => unknown): number => {
  for (let round = 0; round < Math.ceil(rounds / 10); round++) body(round)
  const begin = performance.now()
  for (let round = 0; round < rounds; round++) body(round)
  return ((performance.now() - begin) * 1e6) / (rounds * FRAMES)
}

const rounds = quick ? 20 : 400
const change = perFrame(rounds, (round) => touch(KEYS[round % 2]!))
const same = perFrame(rounds * 50, () => touch(1))
const hostRead = perFrame(rounds, ciphertext)
const copy = perFrame(rounds * 10, () => {
  for (let frame = 0; frame < FRAMES; frame++) to.set(from.subarray(frame * PAGE, (frame + 1) * PAGE), frame * PAGE)
})
process.stdout.write(
  `${JSON.stringify({ values: { change, same, hostRead, copy }, digest: String(ciphertext() + to[PAGE]!) })}\n`
)
