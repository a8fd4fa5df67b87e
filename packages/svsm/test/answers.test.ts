import { CALLING_AREA, CORE_CALL, PROTOCOL } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, PAGE_SIZE, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { CpuInterrupts, GuestApic } from "@vmpl-lab/svsm"
import { OP } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import {
  CA,
  FIRMWARE,
  GUEST_VMSA,
  LIST,
  OTHER_CA,
  PAGE,
  type ScriptedHost,
  SVSM_DATA,
  UNVALIDATED,
  VCPUS
} from "../../../test/support/scriptedHost.ts"
import {
  adjusted,
  core,
  create,
  created,
  createdFrom,
  listed,
  NEW,
  NEW_CA,
  putVmsa,
  pvalidate,
  resultName,
  svsmAnswers,
  withRcx,
  withVcpu
} from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()
const { SNPActive, AlternateInjection } = SEV_FEATURES
const VALIDATE = 4
const IGNORE_CF = 8
const OUTSIDE = FIRMWARE.gpa + FIRMWARE.size
const ISA_HOLE = 0xa_0000
const deposit = (host: ScriptedHost, ...entries: ReadonlyArray<number>) => listed(host, CORE_CALL.DEPOSIT_MEM, entries)
const withdraw = (host: ScriptedHost, rcx: number) => core(host, CORE_CALL.WITHDRAW_MEM, { rcx })

const remove = (host: ScriptedHost, rcx: number): string => core(host, CORE_CALL.DELETE_VCPU, { rcx })

const cleared = (host: ScriptedHost, gpa: number): string => {
  host.setEntry(gpa, { validated: false, perms: [0xf, 0, 0, 0] })
  host.state.validated.delete(gpa / PAGE_SIZE)
  host.fill(gpa, 0xcc)
  expect(pvalidate(host, gpa + VALIDATE)).toBe("SUCCESS")
  return host.peek(gpa).getUint32(0) === 0 ? "yes" : "no"
}
const ring = (host: ScriptedHost, pending: number, exit: number = EXIT.VMGEXIT): string => {
  host.setRegister("rax", [PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL])
  host.poke(CA).setUint8(0, pending)
  const { result } = host.enter(CA, exit)
  return result === CORE_CALL.QUERY_PROTOCOL ? "not served" : resultName(result)
}
answer("entry/not-pending", (host) => ring(host, 0))
answer("entry/pending-2", (host) => ring(host, 2))
answer("entry/no-vmgexit", (host) => ring(host, 1, EXIT.INTR))
answer("entry/order", (host) => {
  core(host, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })
  const writes = host.seen.filter(({ operation: { op } }) => op === OP.WRITE).map(({ operation }) => operation.address)
  const [cleared_, rax] = [writes.indexOf(CA), writes.indexOf(GUEST_VMSA + VMSA.rax)]
  const served = host.seen.findIndex(({ operation: { address } }) => address === GUEST_VMSA + VMSA.rcx)
  const clearedAt = host.seen.findIndex(({ operation: { op, address } }) => op === OP.WRITE && address === CA)
  if (cleared_ > rax) return "after RAX"
  return clearedAt < served ? "before the call is served" : "in between"
})
answer("entry/byte-2", (host) => {
  const apic = new GuestApic(0)
  apic.allow(0x41, true)
  apic.post(0x41)
  const { lazyEoi } = host.state.behaviour
  const cpu = new CpuInterrupts(undefined as never, 0x9000, apic, lazyEoi)
  const program = cpu.runGuest(host.state.running[0]!)
  const result = { lo: 0, hi: 0, ecx: 0, edx: 0, carry: false }
  const writes: Array<number> = []
  for (let step = program.next(result); step.value !== undefined && typeof step.value === "object"; ) {
    if (step.value.op === OP.WRITE) writes.push(step.value.address)
    if (step.value.op === OP.VMGEXIT) break
    step = program.next(result)
  }
  expect(writes.length).toBeGreaterThan(0)
  return writes.includes(CA + CALLING_AREA.no_eoi_required) ? "says whether an EOI is needed" : "left alone"
})
answer("entry/protocol", (host) => resultName(host.call(0x7777, 0).result))
answer("core/unknown", (host) => core(host, 8))

answer("remap-ca/good", (host) => core(host, CORE_CALL.REMAP_CA, { rcx: OTHER_CA }))
answer("remap-ca/misaligned", (host) => core(host, CORE_CALL.REMAP_CA, { rcx: OTHER_CA + 8 }))
answer("remap-ca/svsm", (host) => core(host, CORE_CALL.REMAP_CA, { rcx: SVSM_DATA }))
answer("remap-ca/outside", (host) => core(host, CORE_CALL.REMAP_CA, { rcx: OUTSIDE }))
answer("remap-ca/vmsa", (host) => core(withVcpu(host), CORE_CALL.REMAP_CA, { rcx: NEW }))
answer("remap-ca/other", (host) => core(withVcpu(host), CORE_CALL.REMAP_CA, { rcx: NEW_CA }))
answer("remap-ca/same", (host) => core(host, CORE_CALL.REMAP_CA, { rcx: CA }))
answer("remap-ca/unvalidated", (host) => core(host, CORE_CALL.REMAP_CA, { rcx: UNVALIDATED }))

answer("pvalidate/good", (host) => pvalidate(host, UNVALIDATED + VALIDATE))
answer("pvalidate/misaligned", (host) => core(host, CORE_CALL.PVALIDATE, { rcx: LIST + 4 }))
answer("pvalidate/list-svsm", (host) => core(host, CORE_CALL.PVALIDATE, { rcx: SVSM_DATA }))
answer("pvalidate/list-unvalidated", (host) => core(host, CORE_CALL.PVALIDATE, { rcx: UNVALIDATED }))
answer("pvalidate/count-0", (host) => listed(host, CORE_CALL.PVALIDATE, [UNVALIDATED + VALIDATE], 0))
answer("pvalidate/count-max", (host) => {
  const result = listed(host, CORE_CALL.PVALIDATE, [UNVALIDATED + VALIDATE], 512)
  expect(host.entry(UNVALIDATED).validated).toBe(false)
  return result
})
answer("pvalidate/next", (host) => listed(host, CORE_CALL.PVALIDATE, [UNVALIDATED + VALIDATE], 1, 1))
answer("pvalidate/reserved", (host) => pvalidate(host, UNVALIDATED + VALIDATE + 0x10))
answer("pvalidate/size", (host) => pvalidate(host, UNVALIDATED + VALIDATE + 2))
answer("pvalidate/misaligned-2m", (host) => pvalidate(host, UNVALIDATED + VALIDATE + 1))
answer("pvalidate/svsm", (host) => pvalidate(host, SVSM_DATA + VALIDATE))
answer("pvalidate/area", (host) => pvalidate(host, CA))
answer("pvalidate/vmsa", (host) => pvalidate(withVcpu(host), NEW))
answer("pvalidate/own-list", (host) => {
  const result = pvalidate(host, LIST)
  expect(host.entry(LIST).validated).toBe(true)
  return result
})
answer("pvalidate/incomplete", (host) => {
  host.state.parameters = { ...host.state.parameters, entriesPerCall: 1 }
  return pvalidate(host, UNVALIDATED + VALIDATE, UNVALIDATED + PAGE_SIZE + VALIDATE)
})
answer("pvalidate/mismatch", (host) => pvalidate(host, 0x20_0000 + VALIDATE + 1))
answer("pvalidate/unchanged", (host) => pvalidate(host, PAGE + VALIDATE))
answer("pvalidate/ignored", (host) => pvalidate(host, PAGE + VALIDATE + IGNORE_CF))
answer("pvalidate/swapped", (host) => {
  host.setEntry(PAGE, { validated: false, perms: [0xf, 0, 0, 0] })
  pvalidate(host, PAGE + VALIDATE + IGNORE_CF)
  return host.entry(PAGE).validated ? "validated again" : "refused, page stays invalid"
})
answer("pvalidate/rescinded", (host) => pvalidate(host, UNVALIDATED))
answer("pvalidate/status", (host) => {
  host.pretend = ({ op }, result) => {
    if (op === OP.PVALIDATE) result.lo = 0x20
  }
  return pvalidate(host, UNVALIDATED + VALIDATE)
})
answer("pvalidate/grants", (host) => {
  pvalidate(host, UNVALIDATED + VALIDATE)
  return adjusted(host, UNVALIDATED, true)
})
answer("pvalidate/revokes", (host) => {
  pvalidate(host, PAGE)
  return adjusted(host, PAGE, false)
})
answer("pvalidate/cleared", (host) => cleared(host, ISA_HOLE))
answer("pvalidate/cleared-else", (host) => `${cleared(host, ISA_HOLE - PAGE_SIZE)}`)

answer("create-vcpu/good", (host) => createdFrom(host, 2))
answer("create-vcpu/misaligned", (host) => createdFrom(host, 2, { rcx: NEW + 8 }))
answer("create-vcpu/misaligned-ca", (host) => createdFrom(host, 2, { rdx: NEW_CA + 8 }))
answer("create-vcpu/same", (host) => createdFrom(host, 2, { rdx: NEW }))
answer("create-vcpu/svsm", (host) => create(host, { rcx: SVSM_DATA }))
answer("create-vcpu/live", (host) => createdFrom(host, 2, { rdx: CA }))
answer("create-vcpu/unvalidated", (host) => create(host, { rcx: UNVALIDATED }))
answer("create-vcpu/apic-id", (host) => createdFrom(host, 2, { r8: VCPUS }))
answer("create-vcpu/vmpl-0", (host) => createdFrom(host, 0))
answer("create-vcpu/vmpl-1", (host) => createdFrom(host, 1))
answer("create-vcpu/vmpl-3", (host) => createdFrom(host, 3))
answer("create-vcpu/vmpl-4", (host) => createdFrom(host, 4))
answer("create-vcpu/svme", (host) => {
  const view = putVmsa(host, NEW)
  view.setUint32(VMSA.efer, view.getUint32(VMSA.efer, true) & ~EFER_SVME, true)
  return create(host)
})
answer("create-vcpu/features-caller", (host) => {
  putVmsa(host, NEW, 2, SNPActive | AlternateInjection)
  host.setRegister("sev_features", SNPActive | AlternateInjection)
  return create(host)
})
answer("create-vcpu/features-start", (host) => {
  putVmsa(host, NEW)
  host.setRegister("sev_features", SNPActive | AlternateInjection)
  return create(host)
})
answer("create-vcpu/2m", (host) => {
  putVmsa(host, 0)
  return create(host, { rcx: 0 })
})

answer("delete-vcpu/good", (host) => {
  created(host)
  const result = remove(host, NEW)
  expect([host.entry(NEW).vmsa, host.state.running[1], host.state.registry.length]).toEqual([false, undefined, 1])
  return result
})
answer("delete-vcpu/misaligned", (host) => {
  created(host)
  return remove(host, NEW + 8)
})
answer("delete-vcpu/unknown", (host) => remove(host, PAGE))
answer("delete-vcpu/start-up", (host) => remove(host, GUEST_VMSA))
answer("delete-vcpu/privileged", (host) => {
  created(host)
  Object.assign(host.state.registry[1]!, { vmpl: 1 })
  return remove(host, NEW)
})
answer("delete-vcpu/running", (host) => {
  created(host)
  host.runVmsa(NEW)
  const result = remove(host, NEW)
  // It is served as before.
  expect(host.entry(NEW).vmsa).toBe(true)
  expect(host.state.served[1]![2]).toMatchObject({ vmsaGpa: NEW })
  expect(host.peek(NEW).getUint32(VMSA.efer, true) & EFER_SVME).toBe(EFER_SVME)
  return result
})
answer("delete-vcpu/served", (host) => {
  created(host)
  host.state.serving[1] = host.state.registry[1]
  return remove(host, NEW)
})
answer("delete-vcpu/grants", (host) => {
  created(host)
  host.seen.length = 0
  remove(host, NEW)
  return adjusted(host, NEW, true)
})
answer("delete-vcpu/self", (host) => {
  created(host, 0)
  const own = host.state.registry[1]!
  host.state.served[0] = [undefined, undefined, own]
  const view = host.poke(NEW)
  view.setUint32(VMSA.guest_exit_code, EXIT.VMGEXIT, true)
  for (const [offset, value] of [
    [VMSA.rax, CORE_CALL.DELETE_VCPU],
    [VMSA.rax + 4, PROTOCOL.CORE],
    [VMSA.rcx, NEW]
  ] as const)
    view.setUint32(offset, value, true)
  host.poke(NEW_CA).setUint8(0, 1)
  host.answer()
  expect(host.run().code).toBe(EXIT.HLT)
  expect(host.entry(NEW)).toMatchObject({ vmsa: false, validated: true })
  expect(host.peek(NEW).getUint32(VMSA.rax, true)).toBe(CORE_CALL.DELETE_VCPU)
  return host.state.running[0] === undefined ? "does not return" : "returns"
})

answer("deposit-mem/good", (host) => deposit(host, PAGE))
answer("deposit-mem/svsm", (host) => deposit(host, SVSM_DATA))
answer("deposit-mem/area", (host) => deposit(host, CA))
answer("deposit-mem/reserved", (host) => deposit(host, PAGE + VALIDATE))
answer("deposit-mem/unvalidated", (host) => deposit(host, UNVALIDATED))
answer("deposit-mem/twice", (host) => deposit(host, PAGE, PAGE))
answer("deposit-mem/available", (host) => {
  host.poke(CA).setUint8(CALLING_AREA.mem_available, 0)
  deposit(host, PAGE)
  return `${host.peek(CA).getUint8(CALLING_AREA.mem_available)}`
})
const withdrawn = (host: ScriptedHost): string => {
  const result = withdraw(host, LIST)
  if (result !== "SUCCESS") return result
  const view = host.peek(LIST)
  if (view.getUint16(0, true) === 0) return "no page"
  expect(host.entry(PAGE)).toMatchObject({ perms: [0xf, 0xf, 0xf, 0] })
  expect(host.peek(PAGE).getUint32(0)).toBe(0)
  expect(host.peek(CA).getUint8(CALLING_AREA.mem_available)).toBe(0)
  return view.getUint16(0, true) === 1 && view.getUint32(8, true) === PAGE ? "that page" : "something else"
}
answer("withdraw-mem/good", (host) => {
  host.fill(PAGE, 0xcc)
  deposit(host, PAGE)
  return withdrawn(host)
})
answer("withdraw-mem/empty", withdrawn)
answer("withdraw-mem/room", (host) => withdraw(host, LIST + 0xff8))
answer("withdraw-mem/misaligned", (host) => withdraw(host, LIST + 4))
answer("withdraw-mem/svsm", (host) => withdraw(host, SVSM_DATA))

answer("query-protocol/offered", (host) => withRcx(host, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 }))
answer("query-protocol/version", (host) => withRcx(host, CORE_CALL.QUERY_PROTOCOL, { rcx: 2 }))
answer("query-protocol/absent", (host) => withRcx(host, CORE_CALL.QUERY_PROTOCOL, { rcx: [9, 1] }))
answer("configure-vtom/query", (host) => withRcx(host, CORE_CALL.CONFIGURE_VTOM, { rcx: 1 }))
answer("configure-vtom/query-bits", (host) => withRcx(host, CORE_CALL.CONFIGURE_VTOM, { rcx: 3 }))
answer("configure-vtom/reserved", (host) => withRcx(host, CORE_CALL.CONFIGURE_VTOM, { rcx: 0x12 }))
answer("configure-vtom/configure", (host) => withRcx(host, CORE_CALL.CONFIGURE_VTOM, { rcx: [1, 2] }))

check()
