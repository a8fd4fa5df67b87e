/**
 * Access checks on random pages of a 1 GiB guest, as `bench/host/reference` makes them in C: the same entries, the same
 * stream of random numbers, and in the end the same sum over all answers. `ReferenceCheck.ts WARM_UP_PASSES PASSES`.
 */
import { performance } from "node:perf_hooks"
import { ACCESS, PAGE_4K, PERMISSION, Rmp } from "@vmpl-lab/rmp"

const PAGES = 0x4_0000
const CHECKS_PER_PASS = 0x10_0000
const FIRST_GFN = 0x10_0000
const GUEST_ASID = 1
const OTHER_ASID = 2
const VMPLS = 4
const MASKS = [PERMISSION.READ, PERMISSION.READ | PERMISSION.WRITE, PERMISSION.ALL]
const KINDS = Uint8Array.of(ACCESS.READ, ACCESS.WRITE, ACCESS.FETCH)

let state = 0x9e37_79b9 | 0

/** xorshift32, signed. */
const next = (random: number): number => {
  const one = random ^ (random << 13)
  const two = one ^ (one >>> 17)
  return two ^ (two << 5)
}

const draw = (): number => {
  state = next(state)
  return state
}

const fill = (rmp: Rmp): void => {
  for (let pfn = 0; pfn < PAGES; pfn++) {
    const kind = (draw() >>> 0) % 100
    if (kind < 2) continue
    const asid = kind < 4 ? OTHER_ASID : GUEST_ASID
    const gfn = FIRST_GFN + pfn
    rmp.rmpupdate(pfn, true, PAGE_4K, false, gfn, asid)
    if (kind < 6) continue
    rmp.pvalidate(asid, 0, gfn, pfn, PAGE_4K, PAGE_4K, true)
    for (let vmpl = 1; vmpl < VMPLS; vmpl++) {
      const mask = kind < 10 ? MASKS[(draw() >>> 0) % 3]! : PERMISSION.ALL
      rmp.rmpadjust(asid, 0, gfn, pfn, PAGE_4K, PAGE_4K, vmpl, mask, false)
    }
  }
}

/**
 * One pass. Numbers that C has as literals are literals here too: a constant of a module is loaded again in every round
 * of a loop, and nothing is then known of the range of what is computed with it.
 */
const pass = (rmp: Rmp): number => {
  let sum = 0
  let random = state
  for (let i = 0; i < 0x10_0000; i++) {
    random = next(random)
    const pfn = random & 0x3_ffff
    const kind = KINDS[((random >>> 20) & 0xff) % 3]!
    const code = rmp.checkGuest(1, (random >>> 18) & 3, 0, kind, true, 0x10_0000 + pfn, pfn, 0)
    sum = (Math.imul(sum, 31) + code) | 0
  }
  state = random
  return sum
}

const [warmUp = 1, passes = 1] = process.argv.slice(2).map(Number)
const rmp = new Rmp({ pages: PAGES })
fill(rmp)
let sum = 0
for (let i = 0; i < warmUp; i++) sum = (sum + pass(rmp)) | 0
const begin = performance.now()
for (let i = 0; i < passes; i++) sum = (sum + pass(rmp)) | 0
const ns = ((performance.now() - begin) * 1e6) / (passes * CHECKS_PER_PASS)
process.stdout.write(`${JSON.stringify({ values: { ns }, digest: String(sum >>> 0) })}\n`)
