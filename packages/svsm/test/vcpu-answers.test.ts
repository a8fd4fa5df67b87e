import { CORE_CALL } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import {
  CA,
  GUEST_VMSA,
  LIST,
  OTHER_CA,
  PAGE,
  type ScriptedHost,
  SVSM_DATA,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"
import {
  adjusted,
  core,
  create,
  created,
  createdFrom,
  NEW,
  NEW_CA,
  pend,
  putVmsa,
  pvalidate,
  svsmAnswers,
  withRcx,
  withVcpu
} from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()
const { REMAP_CA, DELETE_VCPU, QUERY_PROTOCOL, CONFIGURE_VTOM } = CORE_CALL
const remap = (host: ScriptedHost, rcx: number): string => core(host, REMAP_CA, { rcx })
const remove = (host: ScriptedHost, rcx: number): string => core(host, DELETE_VCPU, { rcx })
const pages = (host: ScriptedHost, gpa: number): string => {
  const { vmsa, perms } = host.entry(gpa)
  return `${perms.map((rights) => rights.toString(16)).join(", ")}${vmsa ? ", a VMSA" : ""}`
}

answer("remap-ca/clears-new", (host) => {
  host.fill(OTHER_CA, 0xcc)
  expect(remap(host, OTHER_CA)).toBe("SUCCESS")
  const view = host.peek(OTHER_CA)
  expect(view.getUint32(8)).toBe(0xcccc_cccc)
  return view.getUint32(0) === 0 && view.getUint32(4) === 0 ? "0" : "not cleared"
})
answer("remap-ca/clears-old", (host) => {
  remap(host, OTHER_CA)
  return `${host.peek(CA).getUint8(0)}`
})
answer("remap-ca/old-left", (host) => {
  remap(host, OTHER_CA)
  host.poke(CA).setUint8(0, 1)
  host.seen.length = 0
  expect(core(host, QUERY_PROTOCOL, { rcx: 1 })).toBe("SUCCESS")
  const { op: write } = { op: OP.WRITE }
  const touches = host.seen.some(({ operation: { op, address } }) => op === write && address === CA)
  return touches || host.peek(CA).getUint8(0) !== 1 ? "touched" : "never touched"
})
answer("remap-ca/old-free", (host) => {
  remap(host, OTHER_CA)
  return pvalidate(host, CA)
})
answer("remap-ca/others", (host) => {
  withVcpu(host)
  const before = host.state.registry[1]!.caGpa
  expect(remap(host, OTHER_CA)).toBe("SUCCESS")
  return host.state.registry[1]!.caGpa === before ? "stay" : "move"
})
answer("remap-ca/refused-kept", (host) => {
  expect(remap(host, SVSM_DATA)).toBe("INVALID_ADDRESS")
  return host.state.served[0]![2]!.caGpa === CA ? "stays" : "moves"
})

answer("create-vcpu/ca-svsm", (host) => createdFrom(host, 2, { rdx: SVSM_DATA }))
answer("create-vcpu/ca-unvalidated", (host) => createdFrom(host, 2, { rdx: UNVALIDATED }))
answer("create-vcpu/vmsa-live", (host) => create(withVcpu(host), { rdx: PAGE, r8: 2 }))
answer("create-vcpu/vmsa-start-up", (host) => create(host, { rcx: GUEST_VMSA }))
answer("create-vcpu/ca-is-vmsa", (host) => {
  created(host)
  putVmsa(host, LIST)
  return create(host, { rcx: LIST, rdx: NEW })
})
answer("create-vcpu/apic-id-max", (host) => createdFrom(host, 2, { r8: 0xffff_ffff }))
answer("create-vcpu/apic-id-upper", (host) => createdFrom(host, 2, { r8: [9, 1] }))
answer("create-vcpu/features-upper", (host) => {
  putVmsa(host, NEW).setUint32(VMSA.sev_features + 4, 1, true)
  return create(host)
})
answer("create-vcpu/revokes", (host) => {
  created(host)
  return adjusted(host, NEW, false)
})
answer("create-vcpu/looks-after", (host) => {
  const rights: Array<string> = []
  host.meddle = ({ op, address }) => {
    if (op === OP.READ && address >= NEW && address < NEW + PAGE_SIZE)
      rights.push(host.entry(NEW).perms.slice(2).join())
  }
  created(host)
  expect(rights.length).toBeGreaterThan(2)
  return rights.every((levels) => levels === "0,0") ? "after the rights are gone" : "before"
})
answer("create-vcpu/page", (host) => {
  created(host)
  return pages(host, NEW)
})
answer("create-vcpu/refused-page", (host) => {
  expect(createdFrom(host, 0)).toBe("INVALID_PARAMETER")
  return pages(host, NEW)
})
answer("create-vcpu/refused-registry", (host) => {
  expect(createdFrom(host, 0)).toBe("INVALID_PARAMETER")
  return remap(host, NEW)
})
answer("create-vcpu/status", (host) => {
  host.pretend = ({ op, lo }, result) => {
    // The one that sets the VMSA bit.
    if (op === OP.RMPADJUST && lo >>> 16 !== 0) result.lo = 2
  }
  const result = createdFrom(host, 2)
  return `${result}; ${pages(host, NEW)}`
})
answer("create-vcpu/taboo", (host) => {
  created(host)
  const all = [remap(host, NEW), pvalidate(host, NEW), create(host, { rcx: NEW, rdx: PAGE }), pvalidate(host, NEW_CA)]
  return [...new Set(all)].join()
})
answer("create-vcpu/again", (host) => {
  created(host)
  putVmsa(host, LIST)
  expect(create(host, { rcx: LIST, rdx: OTHER_CA })).toBe("SUCCESS")
  const { state } = host
  return `${state.served[1]![2]!.vmsaGpa === LIST ? "the newer" : "the older"}, ${state.registry.length - 1} registered`
})
answer("create-vcpu/no-wake-up", (host) => {
  created(host)
  const told = host.seen.some(({ operation: { op } }) => op === OP.VMGEXIT)
  return told && host.seen.filter(({ operation: { op } }) => op === OP.VMGEXIT).length > 1 ? "yes" : "no"
})
answer("create-vcpu/other-cpu", (host) => {
  created(host, 1)
  return host.state.running[1]?.vmsaGpa === NEW && host.state.running[0]?.vmsaGpa === GUEST_VMSA ? "at once" : "later"
})

answer("delete-vcpu/page", (host) => {
  created(host)
  remove(host, NEW)
  return pages(host, NEW)
})
answer("delete-vcpu/revokes", (host) => {
  created(host)
  host.seen.length = 0
  remove(host, NEW)
  return [...new Set(adjusted(host, NEW, false).split(", "))].sort().join(", ")
})
answer("delete-vcpu/svme", (host) => {
  created(host)
  remove(host, NEW)
  return (host.peek(NEW).getUint32(VMSA.efer, true) & EFER_SVME) === 0 ? "clear" : "set"
})
answer("delete-vcpu/twice", (host) => {
  created(host)
  remove(host, NEW)
  return remove(host, NEW)
})
answer("delete-vcpu/area", (host) => {
  created(host)
  remove(host, NEW)
  return pvalidate(host, NEW_CA)
})
answer("delete-vcpu/again", (host) => {
  created(host)
  remove(host, NEW)
  return createdFrom(host, 2)
})
answer("delete-vcpu/older", (host) => {
  created(host)
  putVmsa(host, LIST)
  create(host, { rcx: LIST, rdx: OTHER_CA })
  expect(remove(host, NEW)).toBe("SUCCESS")
  return host.state.served[1]![2]?.vmsaGpa === LIST ? "stays" : "is gone"
})
answer("delete-vcpu/status", (host) => {
  created(host)
  host.pretend = ({ op }, result) => {
    if (op === OP.RMPADJUST) result.lo = 1
  }
  const result = remove(host, NEW)
  expect(host.state.registry).toHaveLength(2)
  return result
})
answer("delete-vcpu/idle", (host) => {
  created(host, 0)
  pend(host, NEW, NEW_CA, DELETE_VCPU, { rcx: NEW })
  Object.assign(host.state.served[0]!, [undefined, undefined, host.state.registry[1]])
  host.answer()
  expect([host.run().code, host.run().code]).toEqual([EXIT.HLT, EXIT.HLT])
  return "idles"
})

answer("query-protocol/version-0", (host) => withRcx(host, QUERY_PROTOCOL, { rcx: 0 }))
answer("query-protocol/version-max", (host) => withRcx(host, QUERY_PROTOCOL, { rcx: [0, 0xffff_ffff] }))
answer("query-protocol/attestation", (host) => withRcx(host, QUERY_PROTOCOL, { rcx: [1, 1] }))
answer("query-protocol/vtpm-absent", (host) => withRcx(host, QUERY_PROTOCOL, { rcx: [2, 1] }))
answer("query-protocol/reserved", (host) => withRcx(host, QUERY_PROTOCOL, { rcx: [0x8000_0000, 1] }))
answer("query-protocol/registers", (host) => {
  const { rdx, r8 } = host.call(0, QUERY_PROTOCOL, { rcx: 1, rdx: 7, r8: 8 })
  return rdx === 7 && r8 === 8 ? "as they were" : "changed"
})
answer("configure-vtom/enable", (host) => withRcx(host, CONFIGURE_VTOM, { rcx: 2 }))
answer("configure-vtom/all", (host) => withRcx(host, CONFIGURE_VTOM, { rcx: [1, 0xe] }))
answer("configure-vtom/query-upper", (host) => withRcx(host, CONFIGURE_VTOM, { rcx: [1, 1] }))
answer("core/unknown-max", (host) => core(host, 0xffff_ffff))
answer("create-vcpu/area-cleared", (host) => {
  host.fill(NEW_CA, 0xff)
  created(host)
  return host.peek(NEW_CA).getUint8(0) === 0 ? "0" : "as it was"
})

check()
