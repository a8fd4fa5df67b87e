/** The memory acceptance protocol with a host that answers its page state changes. */
import { ACCEPTANCE } from "@vmpl-lab/guest"
import { GHCB, GHCB_MSR, PAGE_SIZE } from "@vmpl-lab/sev-es"
import {
  CA,
  type CallRegisters,
  GUEST_VMSA,
  MIB,
  type ScriptedHost,
  SVSM,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"
import { pend, resultName, svsmAnswers } from "../../../test/support/svsmAnswers.ts"
import { svsmGhcbGpa } from "../src/Image.ts"

const { answer, check } = svsmAnswers()

const { PROTOCOL, CALL } = ACCEPTANCE

const refused = (host: ScriptedHost, registers: CallRegisters): string =>
  resultName(host.call(PROTOCOL, CALL.ACCEPT, registers).result)

/** A call with whatever the host is asked for, which it does, or refuses. */
const accepted = (host: ScriptedHost, rcx: number, rdx: number, doesIt = true): string => {
  const ghcb = svsmGhcbGpa(SVSM.gpa, 0)
  host.share(ghcb)
  pend(host, GUEST_VMSA, CA, CALL.ACCEPT, { rcx, rdx }, PROTOCOL)
  host.answer()
  let asked = 0
  for (let exit = host.run(); exit.request !== GHCB_MSR.RUN_VMPL_REQUEST; exit = host.run()) {
    asked++
    const page = host.shared(ghcb)
    const end = page.getUint16(GHCB.shared_buffer + 2, true)
    if (doesIt) page.setUint16(GHCB.shared_buffer, end + 1, true)
    else page.setUint32(GHCB.sw_exit_info_2, 1, true)
  }
  const [result, next, left] = [host.register("rax"), host.register("rcx"), host.register("rdx")]
  const pages = (next - rcx) / PAGE_SIZE
  return `${resultName(result)}, ${pages} done, ${left} left, ${asked} asked of the host`
}

answer("accept/unknown", (host) => resultName(host.call(PROTOCOL, 1, { rcx: UNVALIDATED, rdx: 1 }).result))
answer("accept/page-misaligned", (host) => refused(host, { rcx: UNVALIDATED + 8, rdx: 1 }))
answer("accept/region-misaligned", (host) => refused(host, { rcx: UNVALIDATED, rdx: 1, r8: 1 }))
answer("accept/nothing", (host) => refused(host, { rcx: UNVALIDATED, rdx: 0 }))
answer("accept/count", (host) => refused(host, { rcx: UNVALIDATED, rdx: [1, 1] }))
answer("accept/unit", (host) => refused(host, { rcx: UNVALIDATED, rdx: 1, r8: 2 }))
answer("accept/unit-high", (host) => refused(host, { rcx: UNVALIDATED, rdx: 1, r8: [1, 0] }))
answer("accept/outside", (host) => refused(host, { rcx: UNVALIDATED, rdx: 0x1000 }))
answer("accept/svsm", (host) => refused(host, { rcx: SVSM.gpa, rdx: 1 }))
answer("accept/area", (host) => refused(host, { rcx: CA, rdx: 1 }))
answer("accept/validated", (host) => refused(host, { rcx: 0x1_4000, rdx: 1 }))
answer("accept/host-refuses", (host) => accepted(host, UNVALIDATED, 2, false))
answer("accept/pages", (host) => {
  const outcome = accepted(host, UNVALIDATED - MIB, 300)
  const { validated, perms } = host.entry(UNVALIDATED - MIB + 299 * PAGE_SIZE)
  return `${outcome}; validated: ${validated}, VMPL2: ${perms[2]}`
})
answer("accept/meets-validated", (host) => {
  host.state.validated.add(UNVALIDATED / PAGE_SIZE + 2)
  return accepted(host, UNVALIDATED, 3)
})
answer("accept/bound", (host) => {
  host.state.parameters = { ...host.state.parameters, entriesPerCall: 2 }
  return accepted(host, UNVALIDATED, 3)
})
answer("accept/not-clean", (host) => {
  host.setEntry(UNVALIDATED + PAGE_SIZE, { validated: true })
  return accepted(host, UNVALIDATED, 3)
})

check()
