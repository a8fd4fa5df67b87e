import { CALLING_AREA, CORE_CALL } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import {
  CA,
  FIRMWARE,
  LIST,
  OTHER_CA,
  PAGE,
  type ScriptedHost,
  SVSM_DATA,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"
import {
  core,
  type Entry,
  listed,
  NEW,
  NEW_CA,
  pvalidate,
  svsmAnswers,
  withVcpu,
  writeList
} from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()
const { PVALIDATE, DEPOSIT_MEM, WITHDRAW_MEM } = CORE_CALL
const VALIDATE = 4
const IGNORE_CF = 8
const OUTSIDE = FIRMWARE.gpa + FIRMWARE.size
const NEXT = UNVALIDATED + PAGE_SIZE

const nextOf = (host: ScriptedHost): number => host.peek(LIST).getUint16(2, true)

/** PVALIDATE of a list of `count` entries that stands at `at`, each the same page with CF ignored. */
const many = (host: ScriptedHost, at: number, count: number): string => {
  const entries = Array.from({ length: count }, () => PAGE + VALIDATE + IGNORE_CF)
  const room = (PAGE_SIZE - (at % PAGE_SIZE) - 8) / 8
  writeList(host, entries.slice(0, room), count, 0, at)
  const result = core(host, PVALIDATE, { rcx: at })
  // A refused list is refused before its first entry.
  if (result !== "SUCCESS") expect(host.peek(at).getUint16(2, true)).toBe(0)
  return result
}

answer("pvalidate/header-reserved", (host) => {
  host.poke(LIST).setUint32(4, 0xffff_ffff, true)
  return pvalidate(host, UNVALIDATED + VALIDATE)
})
answer("pvalidate/count-511", (host) => many(host, LIST, 511))
answer("pvalidate/count-510", (host) => many(host, CA + CALLING_AREA.SIZE, 510))
answer("pvalidate/count-too-many-behind", (host) => many(host, CA + CALLING_AREA.SIZE, 511))
answer("pvalidate/no-room", (host) => core(host, PVALIDATE, { rcx: LIST + PAGE_SIZE - 8 }))
answer("pvalidate/list-outside", (host) => core(host, PVALIDATE, { rcx: OUTSIDE }))
answer("pvalidate/list-vmsa", (host) => core(withVcpu(host), PVALIDATE, { rcx: NEW }))
answer("pvalidate/size-3", (host) => pvalidate(host, UNVALIDATED + VALIDATE + 3))
answer("pvalidate/outside", (host) => pvalidate(host, OUTSIDE + VALIDATE))
answer("pvalidate/region-svsm", (host) => pvalidate(host, 4 * 0x10_0000 + VALIDATE + 1))
answer("pvalidate/next-start", (host) => {
  listed(host, PVALIDATE, [0xfff, UNVALIDATED + VALIDATE], 2, 1)
  return host.entry(UNVALIDATED).validated ? "from next on" : "from the first on"
})
answer("pvalidate/next-after", (host) => {
  expect(pvalidate(host, UNVALIDATED + VALIDATE, NEXT + VALIDATE)).toBe("SUCCESS")
  return nextOf(host) === 2 ? "count" : `${nextOf(host)}`
})
answer("pvalidate/next-failing", (host) => {
  const result = pvalidate(host, UNVALIDATED + VALIDATE, SVSM_DATA + VALIDATE, NEXT + VALIDATE)
  expect([host.entry(UNVALIDATED).validated, host.entry(NEXT).validated]).toEqual([true, false])
  return `${result}, next = ${nextOf(host)}`
})
answer("pvalidate/next-refused", (host) => {
  listed(host, PVALIDATE, [UNVALIDATED + VALIDATE], 0, 0)
  return host.seen.some(({ operation: { op, address } }) => op === OP.WRITE && address === LIST + 2) ? "yes" : "no"
})
answer("pvalidate/rights", (host) => {
  pvalidate(host, UNVALIDATED + VALIDATE)
  return host
    .entry(UNVALIDATED)
    .perms.map((rights) => rights.toString(16))
    .join(", ")
})
answer("pvalidate/cleared-before", (host) => {
  pvalidate(host, UNVALIDATED + VALIDATE)
  const ops = host.seen.map(({ operation: { op, address } }) => (address === UNVALIDATED ? op : -1))
  const granted = ops.indexOf(OP.RMPADJUST)
  const cleared = host.seen.findIndex(
    ({ operation: { op, address } }) => address === UNVALIDATED && op !== OP.PVALIDATE && op !== OP.RMPADJUST
  )
  expect(cleared).toBeGreaterThan(ops.indexOf(OP.PVALIDATE))
  return cleared < granted ? "before its rights are given" : "after"
})
answer("pvalidate/revoked-before", (host) => {
  pvalidate(host, PAGE)
  const ops = host.seen.map(({ operation: { op, address } }) => (address === PAGE ? op : -1))
  return ops.lastIndexOf(OP.RMPADJUST) < ops.indexOf(OP.PVALIDATE) ? "before it is rescinded" : "after"
})
answer("pvalidate/level-1-after", (host) => {
  expect(pvalidate(host, PAGE)).toBe("SUCCESS")
  return `${host.entry(PAGE).perms[1] === 0 ? "none" : "all"}`
})
const pretending = (host: ScriptedHost, instruction: number, eax: number, entry: Entry): string => {
  host.pretend = ({ op }, result) => {
    if (op === instruction) result.lo = eax
  }
  return pvalidate(host, entry)
}
answer("pvalidate/status-1", (host) => pretending(host, OP.PVALIDATE, 1, UNVALIDATED + VALIDATE))
answer("pvalidate/status-2", (host) => pretending(host, OP.PVALIDATE, 2, UNVALIDATED + VALIDATE))
answer("pvalidate/status-15", (host) => pretending(host, OP.PVALIDATE, 15, UNVALIDATED + VALIDATE))
answer("pvalidate/status-16", (host) => pretending(host, OP.PVALIDATE, 16, UNVALIDATED + VALIDATE))
answer("pvalidate/rmpadjust-2", (host) => pretending(host, OP.RMPADJUST, 2, PAGE))
answer("pvalidate/rmpadjust-6", (host) => pretending(host, OP.RMPADJUST, 6, PAGE))
answer("pvalidate/rmpadjust-3", (host) => pretending(host, OP.RMPADJUST, 3, PAGE))

const deposit = (host: ScriptedHost, ...entries: ReadonlyArray<Entry>): string => listed(host, DEPOSIT_MEM, entries)

answer("deposit-mem/misaligned", (host) => core(host, DEPOSIT_MEM, { rcx: LIST + 4 }))
answer("deposit-mem/list-svsm", (host) => core(host, DEPOSIT_MEM, { rcx: SVSM_DATA }))
answer("deposit-mem/count", (host) => listed(host, DEPOSIT_MEM, [PAGE], 0))
answer("deposit-mem/next", (host) => listed(host, DEPOSIT_MEM, [PAGE], 1, 1))
answer("deposit-mem/size", (host) => deposit(host, PAGE + 2))
answer("deposit-mem/misaligned-2m", (host) => deposit(host, PAGE + 1))
answer("deposit-mem/reserved-11", (host) => deposit(host, PAGE + 0x800))
answer("deposit-mem/vmsa", (host) => deposit(withVcpu(host), NEW))
answer("deposit-mem/other-area", (host) => deposit(withVcpu(host), NEW_CA))
answer("deposit-mem/rights", (host) => {
  const result = deposit(host, PAGE)
  return result === "SUCCESS"
    ? host
        .entry(PAGE)
        .perms.map((rights) => rights.toString(16))
        .join(", ")
    : result
})
answer("deposit-mem/taboo", (host) => {
  const result = deposit(host, PAGE)
  return result === "SUCCESS" ? pvalidate(host, PAGE) : result
})
answer("deposit-mem/next-after", (host) => {
  const result = deposit(host, PAGE, OTHER_CA, SVSM_DATA)
  return result === "INVALID_ADDRESS" ? `${result}, next = ${nextOf(host)}` : result
})

/** Two pages are deposited, then withdrawn into a list at `at`. */
const withdrawTwo = (host: ScriptedHost, at: number): string => {
  const deposited = deposit(host, PAGE, OTHER_CA)
  const result = core(host, WITHDRAW_MEM, { rcx: at })
  expect(deposited).toBe(result === "SUCCESS" ? "SUCCESS" : "UNSUPPORTED_CALL")
  return result
}
answer("withdraw-mem/part", (host) => {
  const at = LIST + PAGE_SIZE - 16
  const result = withdrawTwo(host, at)
  if (result !== "SUCCESS") return result
  return `${result}, ${host.peek(at).getUint16(0, true)} of 2 pages, mem_available = ${host.peek(CA).getUint8(1)}`
})
answer("withdraw-mem/all", (host) => {
  const result = withdrawTwo(host, LIST)
  if (result !== "SUCCESS") return result
  return `${result}, ${host.peek(LIST).getUint16(0, true)} of 2 pages, mem_available = ${host.peek(CA).getUint8(1)}`
})
answer("withdraw-mem/granted-before", (host) => {
  const result = withdrawTwo(host, LIST)
  if (result !== "SUCCESS") return result
  const withdrawn = host.seen.map(({ operation }) => operation)
  const granted = withdrawn.findLastIndex(({ op, address }) => op === OP.RMPADJUST && address === PAGE)
  const told = withdrawn.findLastIndex(({ op, address }) => op === OP.WRITE && address === LIST)
  return granted < told ? "before the list tells of it" : "after"
})
answer("withdraw-mem/cleared", (host) => {
  host.fill(PAGE, 0xcc)
  const result = withdrawTwo(host, LIST)
  return result === "SUCCESS" ? (host.peek(PAGE).getUint32(0) === 0 ? "yes" : "no") : result
})
answer("withdraw-mem/unused", (host) => {
  host.fill(LIST, 0xcc)
  const result = withdrawTwo(host, LIST)
  return result === "SUCCESS" ? "SUCCESS" : result
})
answer("withdraw-mem/outside", (host) => core(host, WITHDRAW_MEM, { rcx: OUTSIDE }))
answer("withdraw-mem/unvalidated", (host) => core(host, WITHDRAW_MEM, { rcx: UNVALIDATED }))

check()
