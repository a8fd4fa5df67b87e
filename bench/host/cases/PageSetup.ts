/**
 * What it takes to set a guest's memory up: every 4 KiB page of an 8 GiB guest is given, validated and granted to VMPL2,
 * then a 1 TiB guest in 2 MiB pages. Reports time, and the host memory that the tables hold and that the process gained.
 * `PageSetup.ts [--quick]` (quick: 256 MiB and 32 GiB).
 */
import { createHash } from "node:crypto"
import { performance } from "node:perf_hooks"
import { PAGE_2M, PAGE_4K, PAGES_PER_2M, type PageSize, PERMISSION, Rmp } from "@vmpl-lab/rmp"

const GIB_PAGES = 0x4_0000
const ASID = 1
const quick = process.argv.includes("--quick")

/** Gives `pages` of 4 KiB, in pages of `size`, to the guest; every instruction must succeed. */
const setUp = (rmp: Rmp, pages: number, size: PageSize): void => {
  const step = size === PAGE_2M ? PAGES_PER_2M : 1
  let failures = 0
  for (let pfn = 0; pfn < pages; pfn += step) {
    failures += rmp.rmpupdate(pfn, true, size, false, pfn, ASID)
    failures += rmp.pvalidate(ASID, 0, pfn, pfn, size, size, true)
    failures += rmp.rmpadjust(ASID, 0, pfn, pfn, size, size, 2, PERMISSION.ALL, false)
  }
  if (failures !== 0) throw new Error("an instruction was refused")
}

const residentBytes = (): number => process.memoryUsage.rss()

const measured = (pages: number, size: PageSize) => {
  const before = residentBytes()
  const begin = performance.now()
  const rmp = new Rmp({ pages })
  setUp(rmp, pages, size)
  const seconds = (performance.now() - begin) / 1e3
  const resident = residentBytes() - before
  const hash = createHash("sha256")
  rmp.digestInto((bytes) => hash.update(bytes))
  return { seconds, resident, held: rmp.bytes, digest: hash.digest("hex").slice(0, 16) }
}

// Compiles the functions before the clock starts.
measured(GIB_PAGES / 8, PAGE_4K)
measured(GIB_PAGES * 8, PAGE_2M)

const small = (quick ? 0.25 : 8) * GIB_PAGES
const large = (quick ? 32 : 1024) * GIB_PAGES
const in2M = measured(large, PAGE_2M)
const in4K = measured(small, PAGE_4K)
const values = {
  pagesPerSecond: small / in4K.seconds,
  bytesPer4K: in4K.held / small,
  residentPer4K: in4K.resident / small,
  secondsIn2M: in2M.seconds,
  heldMiBIn2M: in2M.held / 2 ** 20,
  residentMiBIn2M: in2M.resident / 2 ** 20
}
process.stdout.write(`${JSON.stringify({ values, digest: `${in4K.digest} ${in2M.digest}` })}\n`)
