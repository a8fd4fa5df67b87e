import { readFileSync } from "node:fs"
import { apVmsa, CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { EXIT, PAGE_SIZE, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { COCONUT_PANIC, type Protocol, SHIPPED_PROTOCOLS, SVSM_BEHAVIOURS, type SvsmBehaviour } from "@vmpl-lab/svsm"
import { OP } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { type CallRegisters, LIST, ScriptedHost } from "./scriptedHost.ts"

/** A row of docs/svsm.checks.json: what the table says, and what is checked here. */
interface Row {
  readonly id: string
  readonly specification: string
  readonly coconut: string
  readonly coconutStops?: boolean
}
const ROWS: ReadonlyArray<Row> = JSON.parse(
  readFileSync(new URL("../../docs/svsm.checks.json", import.meta.url), "utf8")
)
const WHY: ReadonlyArray<string> = Object.values(COCONUT_PANIC)

/** Asks the SVSM, booted under one behaviour, and tells in the table's words what came of it. */
export type Case = (host: ScriptedHost, behaviour: SvsmBehaviour) => string

const stopsOf = (host: ScriptedHost): number => [...host.state.panics.values()].reduce((sum, times) => sum + times, 0)

/**
 * Collects the cases of a test file; `check` compares each with its row, in both behaviours.
 * @param more protocols beside those that every SVSM serves, made anew for each case
 */
export const svsmAnswers = (more: () => ReadonlyArray<Protocol> = () => []) => {
  const cases = new Map<string, Case>()
  const answer = (id: string, run: Case): void => {
    if (cases.has(id)) throw new Error(`${id} is answered twice`)
    cases.set(id, run)
  }
  const check = (): void => {
    describe.each(SVSM_BEHAVIOURS)("as %s", (behaviour) => {
      it.each([...cases])("%s is answered as the table says", (id, run) => {
        const row = ROWS.find((one) => one.id === id)
        expect(row, "a row of the table").toBeDefined()
        const host = new ScriptedHost(behaviour, [...SHIPPED_PROTOCOLS, ...more()]).boot()
        expect(run(host, behaviour)).toBe(row![behaviour])
        expect(stopsOf(host) > 0).toBe(behaviour === "coconut" && row!.coconutStops === true)
        expect([...host.state.panics.keys()].every((why) => WHY.includes(why))).toBe(true)
      })
    })
  }
  return { answer, check }
}

/** A result code by its name, or in hexadecimal. */
export const resultName = (result: number): string => {
  const named = Object.entries(SVSM_RESULT).find(([name, value]) => value === result && name !== "FAIL_BASE")
  return named?.[0] ?? `0x${result.toString(16)}`
}

/** A call of the core protocol: its result. */
export const core = (host: ScriptedHost, call: number, registers: CallRegisters = {}): string =>
  resultName(host.call(PROTOCOL.CORE, call, registers).result)

/** A page list at `at`. Entries are exact below 2^53, or halves. */
export type Entry = number | readonly [hi: number, lo: number]
export const writeList = (
  host: ScriptedHost,
  entries: ReadonlyArray<Entry>,
  count = entries.length,
  next = 0,
  at = LIST
): void => {
  const view = host.poke(at)
  view.setUint16(0, count, true)
  view.setUint16(2, next, true)
  entries.forEach((entry, i) => {
    const [hi, lo] = typeof entry === "number" ? [Math.floor(entry / 2 ** 32), entry >>> 0] : entry
    view.setUint32(8 + 8 * i, lo, true)
    view.setUint32(12 + 8 * i, hi, true)
  })
}
export const listed = (
  host: ScriptedHost,
  call: number,
  entries: ReadonlyArray<Entry>,
  count?: number,
  next?: number
): string => {
  writeList(host, entries, count, next)
  return core(host, call, { rcx: LIST })
}
export const pvalidate = (host: ScriptedHost, ...entries: ReadonlyArray<Entry>): string =>
  listed(host, CORE_CALL.PVALIDATE, entries)

/** VMSA and calling area that a case creates. */
export const NEW = 0x3_0000
export const NEW_CA = 0x3_1000

/** The guest writes a good VMSA into a page. */
export const putVmsa = (
  host: ScriptedHost,
  gpa: number,
  vmpl = 2,
  sevFeatures: number = SEV_FEATURES.SNPActive
): DataView => {
  const view = host.poke(gpa)
  const bytes = apVmsa({ vmpl, sevFeatures, codeBase: 0x8000, rip: 0, argument: 1 })
  new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).set(bytes)
  return view
}
export const create = (host: ScriptedHost, registers: CallRegisters = {}): string =>
  core(host, CORE_CALL.CREATE_VCPU, { rcx: NEW, rdx: NEW_CA, r8: 1, ...registers })
export const createdFrom = (host: ScriptedHost, vmpl: number, registers: CallRegisters = {}): string => {
  putVmsa(host, NEW, vmpl)
  return create(host, registers)
}
/** There is a vCPU at VMPL2 with NEW and NEW_CA. */
export const created = (host: ScriptedHost, r8 = 1): void => expect(createdFrom(host, 2, { r8 })).toBe("SUCCESS")
export const withVcpu = (host: ScriptedHost): ScriptedHost => {
  created(host)
  return host
}

/** A VMSA's registers and its calling area are those of a pending call, and it left by VMGEXIT. */
export const pend = (
  host: ScriptedHost,
  vmsaGpa: number,
  caGpa: number,
  call: number,
  { rcx = 0, rdx = 0, r8 = 0 }: { readonly rcx?: number; readonly rdx?: number; readonly r8?: number } = {},
  protocol: number = PROTOCOL.CORE
): void => {
  const vmsa = host.poke(vmsaGpa)
  vmsa.setUint32(VMSA.guest_exit_code, EXIT.VMGEXIT, true)
  vmsa.setUint32(VMSA.rax, call, true)
  vmsa.setUint32(VMSA.rax + 4, protocol, true)
  for (const [offset, value] of [
    [VMSA.rcx, rcx],
    [VMSA.rdx, rdx],
    [VMSA.r8, r8]
  ] as const) {
    vmsa.setUint32(offset, value >>> 0, true)
    vmsa.setUint32(offset + 4, Math.floor(value / 2 ** 32), true)
  }
  host.poke(caGpa).setUint8(0, 1)
}

/** Levels to which RMPADJUST gave (or from which it took) rights of a page. */
export const adjusted = (host: ScriptedHost, gpa: number, gives: boolean): string =>
  host.seen
    .filter(
      ({ operation: { op, address, lo } }) => op === OP.RMPADJUST && address === gpa && (lo >>> 8 !== 0) === gives
    )
    .map(({ operation: { lo } }) => lo & 0xff)
    .join(", ")

/** A call of the core protocol that answers in RCX: its result, and both halves of RCX where it succeeds. */
export const withRcx = (host: ScriptedHost, call: number, registers: CallRegisters): string => {
  const { result, rcx } = host.call(PROTOCOL.CORE, call, registers)
  if (result !== SVSM_RESULT.SUCCESS) return resultName(result)
  return `SUCCESS, RCX = ${Math.floor(rcx / 2 ** 32)}, ${rcx % 2 ** 32}`
}
