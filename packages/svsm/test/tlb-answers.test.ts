import { CORE_CALL } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import { PAGE, type ScriptedHost } from "../../../test/support/scriptedHost.ts"
import {
  core,
  create,
  created,
  listed,
  NEW,
  putVmsa,
  pvalidate,
  svsmAnswers
} from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()

/** What the SVSM did since, each operation with its page. */
const done = (host: ScriptedHost): ReadonlyArray<readonly [op: number, page: number]> =>
  host.seen.map(({ operation: { op, address } }) => [op, address - (address % PAGE_SIZE)])

/** Between the last RMPADJUST that takes rights of a page and `until`: whether all TLBs were flushed. */
const flushed = (host: ScriptedHost, gpa: number, until: (op: number, page: number) => boolean): string => {
  const taken = host.seen.findLastIndex(
    ({ operation: { op, address, lo } }) => op === OP.RMPADJUST && address === gpa && ((lo >>> 8) & 0xf) === 0
  )
  expect(taken).toBeGreaterThanOrEqual(0)
  const rest = done(host).slice(taken + 1)
  const end = rest.findIndex(([op, page]) => until(op, page))
  expect(end).toBeGreaterThan(0)
  const between = rest.slice(0, end).map(([op]) => op)
  const sent = between.indexOf(OP.INVLPGB)
  return sent >= 0 && between.indexOf(OP.TLBSYNC, sent) > sent ? "flushed" : "left"
}
const isAnswer = (op: number): boolean => op === OP.WRITE

answer("tlb/rescind", (host) => {
  expect(pvalidate(host, PAGE)).toBe("SUCCESS")
  return flushed(host, PAGE, isAnswer)
})
answer("tlb/create", (host) => {
  created(host)
  host.seen.splice(host.seen.findLastIndex(({ operation: { lo, op } }) => op === OP.RMPADJUST && lo >>> 16 !== 0))
  return flushed(host, NEW, (op, page) => op === OP.READ && page === NEW)
})
answer("tlb/delete", (host) => {
  created(host)
  host.seen.length = 0
  expect(core(host, CORE_CALL.DELETE_VCPU, { rcx: NEW })).toBe("SUCCESS")
  return flushed(host, NEW, isAnswer)
})
answer("tlb/deposit", (host) => {
  const result = listed(host, CORE_CALL.DEPOSIT_MEM, [PAGE])
  return result === "SUCCESS" ? flushed(host, PAGE, isAnswer) : result
})
answer("tlb/entry", (host) => {
  core(host, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })
  const ops = done(host).map(([op]) => op)
  return ops.includes(OP.INVLPGB) && ops.lastIndexOf(OP.TLBSYNC) > ops.lastIndexOf(OP.WRITE) ? "flushed" : "left"
})
answer("tlb/grant", (host) => {
  // More rights need no flush.
  putVmsa(host, NEW, 0)
  expect(create(host)).toBe("INVALID_PARAMETER")
  return host.entry(NEW).perms[2] === 0xf ? "given back" : "lost"
})

check()
