import { CORE_CALL, PROTOCOL } from "@vmpl-lab/guest"
import { EXIT, GHCB_MSR, VMSA } from "@vmpl-lab/sev-es"
import { expect } from "vitest"
import {
  CA,
  GUEST_VMSA,
  LIST,
  OTHER_CA,
  PAGE,
  type ScriptedHost,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"
import {
  adjusted,
  core,
  create,
  NEW,
  NEW_CA,
  pend,
  putVmsa,
  resultName,
  svsmAnswers,
  writeList
} from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()
const { QUERY_PROTOCOL, PVALIDATE, CREATE_VCPU, DELETE_VCPU, REMAP_CA, DEPOSIT_MEM, WITHDRAW_MEM } = CORE_CALL
const VALIDATE = 4
const ALL = [0xf, 0xf, 0xf, 0xf] as const

/** The start-up vCPU is at VMPL1. */
const atVmpl1 = (host: ScriptedHost): ScriptedHost => {
  const { state } = host
  const startUp = { ...state.registry[0]!, vmpl: 1 }
  state.registry[0] = startUp
  state.served[0] = [undefined, startUp]
  state.running[0] = startUp
  state.parameters = { ...state.parameters, guestVmpl: 1 }
  host.poke(GUEST_VMSA).setUint8(VMSA.vmpl, 1)
  return host
}

/** Lets the SVSM run until it asks the host for a level. @returns that level */
const runTo = (host: ScriptedHost): number => {
  host.answer()
  const { code, request, argument } = host.run()
  expect([code, request]).toEqual([EXIT.VMGEXIT, GHCB_MSR.RUN_VMPL_REQUEST])
  return argument
}
/** A call of the core protocol from a VMSA: its result. */
const from = (
  host: ScriptedHost,
  vmsaGpa: number,
  caGpa: number,
  call: number,
  registers: { readonly rcx?: number; readonly rdx?: number; readonly r8?: number } = {}
): string => {
  pend(host, vmsaGpa, caGpa, call, registers)
  runTo(host)
  return resultName(host.peek(vmsaGpa).getUint32(VMSA.rax, true))
}
const fromVmpl1 = (host: ScriptedHost, call: number, registers: Parameters<typeof from>[4] = {}): string =>
  from(host, GUEST_VMSA, CA, call, registers)

/** What a case tells where VMPL2 cannot give its vCPU a VMPL3. */
const NONE = "no VMPL3 there"
/** VMPL2 has given its own vCPU a VMSA at VMPL3, at PAGE with the calling area OTHER_CA. */
const withVmpl3 = (host: ScriptedHost, run: (host: ScriptedHost) => string): string => {
  putVmsa(host, PAGE, 3)
  const result = create(host, { rcx: PAGE, rdx: OTHER_CA, r8: 0 })
  if (result !== "SUCCESS") {
    expect(result).toBe("INVALID_PARAMETER")
    return NONE
  }
  return run(host)
}
const fromVmpl3 = (host: ScriptedHost, call: number, registers: Parameters<typeof from>[4] = {}): string =>
  from(host, PAGE, OTHER_CA, call, registers)

const createFromVmpl1 = (host: ScriptedHost, vmpl: number): string => {
  atVmpl1(host)
  putVmsa(host, NEW, vmpl)
  return fromVmpl1(host, CREATE_VCPU, { rcx: NEW, rdx: NEW_CA, r8: 1 })
}
answer("levels/create-1-1", (host) => createFromVmpl1(host, 1))
answer("levels/create-1-2", (host) => createFromVmpl1(host, 2))
answer("levels/create-1-3", (host) => createFromVmpl1(host, 3))
const createFromVmpl3 = (host: ScriptedHost, vmpl: number): string =>
  withVmpl3(host, () => {
    putVmsa(host, NEW, vmpl)
    for (const gpa of [NEW, NEW_CA]) host.setEntry(gpa, { perms: ALL })
    return fromVmpl3(host, CREATE_VCPU, { rcx: NEW, rdx: NEW_CA, r8: 1 })
  })
answer("levels/create-3-3", (host) => createFromVmpl3(host, 3))
answer("levels/create-3-2", (host) => createFromVmpl3(host, 2))
answer("levels/create-3-1", (host) => createFromVmpl3(host, 1))
answer("levels/create-page", (host) => withVmpl3(host, () => host.entry(PAGE).perms.join(", ")))

answer("levels/grants-1", (host) => {
  atVmpl1(host)
  writeList(host, [UNVALIDATED + VALIDATE])
  expect(fromVmpl1(host, PVALIDATE, { rcx: LIST })).toBe("SUCCESS")
  return adjusted(host, UNVALIDATED, true)
})
answer("levels/grants-3", (host) =>
  withVmpl3(host, () => {
    host.setEntry(LIST, { perms: ALL })
    writeList(host, [UNVALIDATED + VALIDATE])
    expect(fromVmpl3(host, PVALIDATE, { rcx: LIST })).toBe("SUCCESS")
    return adjusted(host, UNVALIDATED, true)
  })
)
answer("levels/names-others", (host) =>
  withVmpl3(host, () => {
    host.fill(LIST, 0xcc)
    const calls = [REMAP_CA, PVALIDATE, DEPOSIT_MEM, WITHDRAW_MEM, CREATE_VCPU]
    const results = calls.map((call) => fromVmpl3(host, call, { rcx: LIST, rdx: NEW_CA }))
    expect([host.peek(LIST).getUint32(0), host.entry(LIST).perms]).toEqual([0xcccc_cccc, [0xf, 0xf, 0xf, 0]])
    return [...new Set(results)].join()
  })
)
answer("levels/rescinds-others", (host) =>
  withVmpl3(host, () => {
    host.setEntry(LIST, { perms: ALL })
    writeList(host, [NEW])
    const result = fromVmpl3(host, PVALIDATE, { rcx: LIST })
    expect(host.entry(NEW).validated).toBe(true)
    return result
  })
)
answer("levels/delete-lower", (host) => withVmpl3(host, () => core(host, DELETE_VCPU, { rcx: PAGE })))
/** VMPL3 deletes another vCPU's VMSA of a level. */
const deleteFromVmpl3 = (host: ScriptedHost, vmpl: number): string =>
  withVmpl3(host, () => {
    putVmsa(host, NEW, vmpl)
    expect(create(host, { rcx: NEW, rdx: NEW_CA, r8: 1 })).toBe("SUCCESS")
    return fromVmpl3(host, DELETE_VCPU, { rcx: NEW })
  })
answer("levels/delete-3-3", (host) => deleteFromVmpl3(host, 3))
answer("levels/delete-3-2", (host) => deleteFromVmpl3(host, 2))
answer("levels/call-3", (host) =>
  withVmpl3(host, () => {
    pend(host, PAGE, OTHER_CA, QUERY_PROTOCOL, { rcx: 1 })
    const next = runTo(host)
    return `${resultName(host.peek(PAGE).getUint32(VMSA.rax, true))}, VMPL${next} runs next`
  })
)
answer("levels/both", (host) =>
  withVmpl3(host, () => {
    pend(host, PAGE, OTHER_CA, QUERY_PROTOCOL, { rcx: 1 })
    pend(host, GUEST_VMSA, CA, QUERY_PROTOCOL, { rcx: 1 })
    const order = [runTo(host), runTo(host)]
    expect([host.peek(CA).getUint8(0), host.peek(OTHER_CA).getUint8(0)]).toEqual([0, 0])
    return order.map((vmpl) => `VMPL${vmpl}`).join(", then ")
  })
)
answer("levels/nobody", (host) =>
  withVmpl3(host, () => {
    const first = runTo(host)
    fromVmpl3(host, QUERY_PROTOCOL, { rcx: 1 })
    return `VMPL${first}, then VMPL${runTo(host)}`
  })
)
answer("levels/area", (host) =>
  withVmpl3(host, () => {
    host.setEntry(NEW_CA, { perms: ALL })
    expect(fromVmpl3(host, REMAP_CA, { rcx: NEW_CA })).toBe("SUCCESS")
    const areas = [2, 3].map((vmpl) => host.state.served[0]![vmpl]!.caGpa)
    return areas[0] === CA && areas[1] === NEW_CA ? "its own alone" : "another's too"
  })
)
answer("levels/vcpu", (host) =>
  withVmpl3(host, () => {
    const { state } = host
    return [2, 3].every((vmpl) => state.served[0]![vmpl]?.vmpl === vmpl) ? "one VMSA and area each" : "one"
  })
)
answer("levels/withdraw-others", (host) =>
  withVmpl3(host, () => {
    writeList(host, [NEW])
    expect(core(host, DEPOSIT_MEM, { rcx: LIST })).toBe("SUCCESS")
    host.setEntry(NEW_CA, { perms: ALL })
    expect(fromVmpl3(host, WITHDRAW_MEM, { rcx: NEW_CA })).toBe("SUCCESS")
    return host.peek(NEW_CA).getUint16(0, true) === 0 ? "no page" : "that page"
  })
)
answer("levels/withdraw-lower", (host) =>
  withVmpl3(host, () => {
    for (const gpa of [LIST, NEW]) host.setEntry(gpa, { perms: ALL })
    writeList(host, [NEW])
    expect(fromVmpl3(host, DEPOSIT_MEM, { rcx: LIST })).toBe("SUCCESS")
    expect(core(host, WITHDRAW_MEM, { rcx: NEW_CA })).toBe("SUCCESS")
    return host.peek(NEW_CA).getUint16(0, true) === 1 ? "that page" : "no page"
  })
)
answer("levels/protocols", (host) =>
  withVmpl3(host, () => {
    pend(host, PAGE, OTHER_CA, 0, { rcx: LIST }, PROTOCOL.ATTESTATION)
    runTo(host)
    return resultName(host.peek(PAGE).getUint32(VMSA.rax, true))
  })
)

check()
