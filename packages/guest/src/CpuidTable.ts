// @ghcb 0x72
import {
  CPUID_COUNT_MAX,
  CPUID_FUNCTION,
  CPUID_FUNCTION_BASE,
  CPUID_FUNCTION_SIZE,
  CPUID_PAGE,
  PAGE_SIZE,
  TERMINATE,
  type U64,
  VMSA
} from "@vmpl-lab/sev-es"
import { type Program, readBytes, readRegister } from "@vmpl-lab/vmpl"
import type { Ghcb } from "./Ghcb.ts"
import { type CpuidResult, ghcbCpuid } from "./ghcb/Instructions.ts"
import { terminate } from "./MsrProtocol.ts"

// CPUID by the page that the firmware has checked. The hypervisor is asked only for what differs between the vCPUs.
// @spec SNP-ABI "CPUID page"; Linux snp_cpuid

const CR4_OSXSAVE = 1 << 18
const CR4_PKE = 1 << 22

/** Leaves whose answer hangs on ECX. */
const INDEXED: ReadonlySet<number> = new Set([
  4, 7, 0xb, 0xd, 0xf, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1d, 0x1e, 0x1f, 0x24, 0x8000_001d
])

const XSTATE = 0xd
/** Legacy region and header of the XSAVE area. */
const XSAVE_BASE_SIZE = 0x240
/** Leaf 0xd, subleaf 1, EAX. */
const XSAVEC_OR_XSAVES = 0b1010
const XSAVES = 0b1000

interface CpuidFunction extends CpuidResult {
  readonly leaf: number
  readonly subleaf: number
  /** For the base size of the XSAVE area: XCR0 is 1 or 3, XSS is 0. */
  readonly base: boolean
}

/** The functions of a CPUID page; null when it says that there are none or more than fit. */
const functionsOf = (bytes: Uint8Array): ReadonlyArray<CpuidFunction> | null => {
  const view = new DataView(bytes.buffer)
  const count = view.getUint32(CPUID_PAGE.count, true)
  if (count === 0 || count > CPUID_COUNT_MAX) return null
  return Array.from({ length: count }, (_, i) => {
    const at = CPUID_FUNCTION_BASE + CPUID_FUNCTION_SIZE * i
    const field = (name: keyof typeof CPUID_FUNCTION): number => view.getUint32(at + CPUID_FUNCTION[name], true)
    const upper = (name: "xcr0_in" | "xss_in"): number => view.getUint32(at + CPUID_FUNCTION[name] + 4, true)
    const xcr0 = upper("xcr0_in") === 0 && (field("xcr0_in") === 1 || field("xcr0_in") === 3)
    return {
      leaf: field("eax_in"),
      subleaf: field("ecx_in"),
      base: xcr0 && field("xss_in") === 0 && upper("xss_in") === 0,
      eax: field("eax"),
      ebx: field("ebx"),
      ecx: field("ecx"),
      edx: field("edx")
    }
  })
}

const find = (table: ReadonlyArray<CpuidFunction>, leaf: number, subleaf: number): CpuidFunction | undefined =>
  table.find(
    (entry) =>
      entry.leaf === leaf &&
      (!INDEXED.has(leaf) || entry.subleaf === subleaf) &&
      (leaf !== XSTATE || entry.subleaf > 1 || entry.base)
  )

/** Whether a leaf that is not in the table is one that the processor has, with zeros: a table may leave those out. */
const inRange = (table: ReadonlyArray<CpuidFunction>, leaf: number): boolean => {
  const last = (first: number): number => table.find((entry) => entry.leaf === first)?.eax ?? -1
  return leaf <= last(0) || [0x4000_0000, 0x8000_0000].some((first) => leaf >= first && leaf <= last(first))
}

const bit = ({ lo, hi }: U64, index: number): boolean => (((index < 32 ? lo : hi) >>> (index % 32)) & 1) !== 0

/** Size of the XSAVE area by the components' own subleaves; null when one of those enabled is not in the table. */
const xsaveSize = (table: ReadonlyArray<CpuidFunction>, enabled: U64, compacted: boolean): number | null => {
  let size = XSAVE_BASE_SIZE
  for (let component = 2; component < 64; component++) {
    if (!bit(enabled, component)) continue
    const entry = table.find(({ leaf, subleaf }) => leaf === XSTATE && subleaf === component)
    if (entry === undefined) return null
    size = compacted ? size + entry.eax : Math.max(size, entry.eax + entry.ebx)
  }
  return size
}

/** XCR0 as XGETBV shows it; 1 while the operating system has not enabled that. */
export function* readXcr0(): Program<U64> {
  if (((yield readRegister(VMSA.cr4)).lo & CR4_OSXSAVE) === 0) return { lo: 1, hi: 0 }
  const { lo, hi } = yield readRegister(VMSA.xcr0)
  return { lo, hi }
}

/**
 * CPUID of a guest that has a CPUID page. Zeros where neither the page nor the processor has the leaf; ends the guest
 * when the page is broken or the hypervisor does not tell its part.
 */
export function* pageCpuid(ghcb: Ghcb, pageGpa: number, leaf: number, subleaf: number): Program<CpuidResult> {
  const bytes = new Uint8Array(PAGE_SIZE)
  yield readBytes(pageGpa, bytes)
  const table = functionsOf(bytes)
  if (table === null) return yield* terminate(TERMINATE.CPUID)
  const found = find(table, leaf, subleaf)
  const { eax, ebx, ecx, edx } = found ?? { eax: 0, ebx: 0, ecx: 0, edx: 0 }
  const same = { eax, ebx, ecx, edx }
  if (found === undefined && !inRange(table, leaf)) return same
  const { lo: cr4 } = yield readRegister(VMSA.cr4)
  switch (leaf) {
    case 1: {
      const host = yield* hypervisorCpuid(ghcb, leaf, subleaf)
      return {
        eax,
        ebx: ((host.ebx & 0xff00_0000) | (ebx & 0xff_ffff)) >>> 0,
        ecx: ((cr4 & CR4_OSXSAVE) === 0 ? ecx : ecx | (1 << 27)) >>> 0,
        edx: ((host.edx & 0x200) | (edx & ~0x200)) >>> 0
      }
    }
    case 7:
      return { ...same, ecx: ((ecx & ~0x10) | ((cr4 & CR4_PKE) === 0 ? 0 : 0x10)) >>> 0 }
    case 0xb:
      return { ...same, edx: (yield* hypervisorCpuid(ghcb, leaf, 0)).edx }
    case XSTATE:
      return subleaf > 1 ? same : yield* withXsaveSize(table, same, subleaf)
    case 0x8000_001e: {
      const host = yield* hypervisorCpuid(ghcb, leaf, subleaf)
      const mixed = (own: number, other: number): number => ((own & ~0xff) | (other & 0xff)) >>> 0
      return { eax: host.eax, ebx: mixed(ebx, host.ebx), ecx: mixed(ecx, host.ecx), edx }
    }
    default:
      return same
  }
}

function* withXsaveSize(
  table: ReadonlyArray<CpuidFunction>,
  found: CpuidResult,
  subleaf: number
): Program<CpuidResult> {
  const enabled = yield* readXcr0()
  const compacted = subleaf === 1
  if (compacted && (found.eax & XSAVEC_OR_XSAVES) === 0) return yield* terminate(TERMINATE.CPUID)
  if (compacted && (found.eax & XSAVES) !== 0) {
    const xss = yield readRegister(VMSA.xss)
    enabled.lo |= xss.lo
    enabled.hi |= xss.hi
  }
  const ebx = xsaveSize(table, enabled, compacted)
  if (ebx === null) return yield* terminate(TERMINATE.CPUID)
  return { ...found, ebx: ebx >>> 0 }
}

function* hypervisorCpuid(ghcb: Ghcb, leaf: number, subleaf: number): Program<CpuidResult> {
  const reply = yield* ghcbCpuid(ghcb, leaf, subleaf, yield* readXcr0())
  return reply.ok ? reply.value : yield* terminate(TERMINATE.CPUID_HV)
}
